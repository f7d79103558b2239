//! The interface org.cortexd.Cortex1.Job: work that outlasts the call that began it.
//! What the work is, and that its end is announced, is `manager`'s.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use zbus::{OwnedObjectPath, interface};

use super::{ROOT, values::Dict};

/// The jobs under way on one connection.
#[derive(Debug)]
pub(super) struct Jobs {
    /// The number of the last job since the daemon has started, over all connections.
    last: Arc<AtomicU32>,
    /// Locked for a look-up.
    running: Mutex<BTreeMap<u32, Job>>,
}

/// One job. Its object is there while it runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    pub(super) id: u32,
    kind: &'static str,
}

impl Jobs {
    pub(super) fn new(last: Arc<AtomicU32>) -> Self {
        Self { last, running: Mutex::default() }
    }

    /// Notes a new job.
    pub(super) fn begin(&self, kind: &'static str) -> Job {
        let job = Job { id: self.last.fetch_add(1, Relaxed).wrapping_add(1), kind };
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(job.id, job);
        job
    }

    pub(super) fn end(&self, job: Job) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&job.id);
    }

    pub(super) fn running(&self) -> Vec<Job> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).values().copied().collect()
    }
}

impl Job {
    /// The path of its object.
    pub(super) fn path(self) -> OwnedObjectPath {
        OwnedObjectPath::try_from(format!("{ROOT}/job/{}", self.id))
            .expect("digits are a path element")
    }

    /// What its properties show.
    pub(super) fn properties(self) -> Dict {
        let kind = zbus::Str::from_static(self.kind);
        Dict::from([("Id".into(), self.id.into()), ("Kind".into(), kind.into())])
    }
}

#[interface(name = "org.cortexd.Cortex1.Job", introspection_docs = false)]
impl Job {
    #[zbus(property(emits_changed_signal = "const"), name = "Id")]
    fn shown_id(&self) -> u32 {
        self.id
    }

    #[zbus(property(emits_changed_signal = "const"), name = "Kind")]
    fn shown_kind(&self) -> &'static str {
        self.kind
    }
}

#[cfg(test)]
mod tests {
    use zbus::object_server::Interface;

    use super::*;

    /// A job is gone before a test could look at it in a running daemon; so its description is taken
    /// from here.
    #[test]
    fn the_file_of_the_interface_is_what_a_job_answers() {
        let mut live = String::new();
        Job { id: 1, kind: "backup" }.introspect_to_writer(&mut live, 2);
        let file = include_str!("../../../dist/dbus-1/interfaces/org.cortexd.Cortex1.Job.xml");
        let told = |line: &&str| !line.trim_start().starts_with("<!--");
        let told: String = file.lines().filter(told).map(|line| format!("{line}\n")).collect();
        assert!(told.contains(&live), "{live} is not in {told}");
    }

    #[test]
    fn the_numbers_of_jobs_go_on_over_connections() {
        let last = Arc::default();
        let (first, second) = (Jobs::new(Arc::clone(&last)), Jobs::new(last));
        let (one, two) = (first.begin("backup"), second.begin("backup"));
        assert_ne!(one.id, two.id);
        assert_eq!((first.running().len(), second.running().len()), (1, 1));
        first.end(one);
        assert_eq!((first.running().len(), second.running().len()), (0, 1));
    }
}
