//! Health: no panic, no error and no divergence in a log, and warnings, memory and descriptors within bounds.

/// Warnings of one node in one cycle. A state is logged when it changes, not as long as it lasts.
const MOST_WARNINGS: usize = 150;

/// Resident memory of a node that holds a few hundred rows, in KiB.
const MOST_MEMORY_KIB: u64 = 200 << 10;

/// Open descriptors of a node without clients.
const MOST_DESCRIPTORS: usize = 128;

/// What was measured of a process at the end of a cycle.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Resources {
    pub(crate) memory_kib: u64,
    pub(crate) descriptors: usize,
}

/// What is wrong in the part of a log that a cycle has written. Errors are expected while the disk was full.
pub(crate) fn check_log(log: &str, disk_was_full: bool) -> Vec<String> {
    let mut broken = Vec::new();
    let is_error = |line: &&str| {
        let is_panic = line.contains("panicked at");
        // The words of the warning that replicas have diverged: nobody damages a row here.
        let is_divergence = line.contains("and hold different rows");
        is_panic
            || is_divergence
            || (!disk_was_full && line.split_whitespace().take(3).any(|word| word == "ERROR"))
    };
    broken.extend(log.lines().filter(is_error).map(str::to_owned));
    let is_warning = |line: &&str| line.split_whitespace().take(3).any(|word| word == "WARN");
    let warnings: Vec<_> = log.lines().filter(is_warning).collect();
    if warnings.len() > MOST_WARNINGS {
        let last = warnings.last().unwrap_or(&"");
        broken.push(format!("{} warnings in one cycle, the last of them: {last}", warnings.len()));
    }
    broken
}

pub(crate) fn check_resources(found: Resources) -> Vec<String> {
    let mut broken = Vec::new();
    if found.memory_kib > MOST_MEMORY_KIB {
        broken.push(format!("{} KiB are resident, more than {MOST_MEMORY_KIB}", found.memory_kib));
    }
    if found.descriptors > MOST_DESCRIPTORS {
        broken.push(format!("{} descriptors, more than {MOST_DESCRIPTORS}", found.descriptors));
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_and_an_error_are_found() {
        let panic = "thread 'writer' panicked at src/store/writer.rs:1:1:";
        assert_eq!(check_log(panic, true).len(), 1);
        let error = "2026-11-28T16:00:00Z ERROR cortexd::store: the sync failed";
        assert_eq!(check_log(error, false).len(), 1);
        assert_eq!(check_log(error, true).len(), 0);
        assert_eq!(check_log("INFO cortexd: an ERROR of somebody else", false).len(), 0);
        let diverged = "WARN the replicas of a table here and on elm know the same writes and hold different rows";
        assert_eq!(check_log(diverged, true).len(), 1);
    }

    #[test]
    fn a_flood_of_warnings_is_found() {
        let warnings = "WARN cortexd: the same again\n".repeat(MOST_WARNINGS);
        assert_eq!(check_log(&warnings, false).len(), 0);
        assert_eq!(check_log(&(warnings + "WARN once more"), false).len(), 1);
    }

    #[test]
    fn memory_and_descriptors_that_grow_are_found() {
        let found =
            Resources { memory_kib: MOST_MEMORY_KIB + 1, descriptors: MOST_DESCRIPTORS + 1 };
        assert_eq!(check_resources(found).len(), 2);
        assert_eq!(check_resources(Resources::default()).len(), 0);
    }
}
