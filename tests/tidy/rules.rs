//! What the compiler does not see of the repository's order, a function per rule.
//! Leaves reading the tree, and reporting, to `tidy`; each rule here is seen to fail on a made-up file.

use super::source::File;

/// Where a rule is broken, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) line: usize,
    pub(crate) message: String,
}

fn finding(line: usize, message: impl Into<String>) -> Finding {
    Finding { line, message: message.into() }
}

/// Words that stood for a concept which has the field's word now: the glossary in `src/core/lib.rs`.
const RETIRED: [(&str, &str); 14] = [
    ("incarnation", "actor"),
    ("minted", "actor, which is rotated"),
    ("feed", "change log"),
    ("floor", "GC watermark"),
    ("full pass", "snapshot transfer"),
    ("push back", "re-announce"),
    ("written off", "abandoned"),
    ("overheard", "status gossip"),
    ("buried", "tombstone"),
    ("loser", "losing version"),
    ("notary", "signer"),
    ("doorway", "handshake limiter"),
    ("ambient", "system clock, or RNG"),
    ("sparing", "log throttle"),
];

/// Parts of identifiers that stood for something which has a name of the field now. They are natural in prose.
const RETIRED_IN_NAMES: [(&str, &str); 10] = [
    ("doubtful", "quarantined, unverified, or in doubt"),
    ("errand", "request"),
    ("errands", "requests"),
    ("gist", "first line"),
    ("heed", "report"),
    ("settle", "resolve, wait, or sync"),
    ("settled", "resolved, or stable"),
    ("settlement", "name resolution"),
    ("slack", "free space"),
    ("whoever", "caller, reader, or peer"),
];

/// Names of types that said nothing outside of their module.
const VAGUE_TYPES: [&str; 12] = [
    "Found", "Heard", "Held", "Means", "Place", "There", "Told", "What", "Which", "Whose", "Wish",
    "Words",
];

/// What was deployed, or promised, with a retired word in it.
const DEPLOYED: [&str; 4] = [
    "src/store/migrations",
    "src/store/schema.rs",
    "tests/store/migrations.rs",
    "tests/tidy/rules.rs",
];

/// A module that must step outside the language to do its work, and nothing else.
const UNSAFE: [&str; 3] =
    ["src/daemon/activation.rs", "tests/faultfs/src/lib.rs", "tests/faultfs/src/vfs.rs"];

/// What a module of the daemon's package may import of the others. `sys` is for all of them; nobody may import
/// `daemon`, which puts the others together.
const DAEMON: &[(&str, &[&str])] = &[
    ("sys", &[]),
    ("remedy", &[]),
    ("pki", &["sys"]),
    ("store", &["sys"]),
    ("service", &["remedy", "store", "sys"]),
    ("edge", &["service", "store", "sys"]),
    ("edge::peer", &["pki", "service", "store", "sys"]),
    ("daemon", &["edge", "pki", "service", "store", "sys"]),
    ("cli", &["pki", "remedy", "sys"]),
    ("bin", &["cli", "daemon"]),
];

/// The same within `cortex-core`; the longest entry that fits a module holds. Bytes know nothing of what they
/// mean, except where requests and their refusals are put into words; nouns know nothing of bytes, except
/// records, which are kept as the bytes that they came as.
const CORE: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("model::record", &["wire"]),
    ("api", &["model", "wire"]),
    ("backoff", &[]),
    // What only machines ask of each other is said in replicas and rows of the directory.
    ("api::comparison", &["model", "replication", "wire"]),
    ("api::peers", &["directory", "model", "wire"]),
    ("clock", &["model"]),
    ("rule", &[]),
    ("directory", &["model", "rule"]),
    // Its rows are bytes too.
    ("directory::row", &["model", "wire"]),
    ("directory::fields", &["model", "wire"]),
    ("gate", &["directory", "model"]),
    ("membership", &["model"]),
    ("replication", &["backoff", "clock", "directory", "model"]),
    ("wire", &[]),
    ("wire::rpc", &["model"]),
    ("wire::fields", &["model"]),
    ("wire::link", &["model", "replication"]),
    ("wire::replication", &["directory", "model", "replication"]),
];

/// What the core must not touch: it is given time, and does nothing in the world.
const WORLD: [&str; 9] = [
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
];

/// Crates, or parts of them, and the only directories of `src/` that name them.
const CRATES: &[(&str, &[&str])] = &[
    ("rusqlite", &["src/store"]),
    ("tokio::net", &["src/edge", "src/daemon"]),
    ("tokio", &["src/store", "src/service", "src/edge", "src/daemon"]),
    ("clap", &["src/cli", "src/daemon"]),
    ("zbus", &["src/edge/bus"]),
    ("rustls", &["src/pki", "src/edge/peer", "src/cli/mesh"]),
    ("tokio_rustls", &["src/edge/peer"]),
    ("rcgen", &["src/pki"]),
    ("x509_parser", &["src/pki"]),
    ("sd_notify", &["src/daemon"]),
    ("zbus", &["src/edge/bus"]),
    ("zbus_polkit", &["src/edge/bus"]),
];

/// Written in two parts, so that this file does not break the rule.
const UNFINISHED: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Directories of machines on which this was written.
const MACHINE_PATHS: [&str; 2] = [concat!("/wo", "rk"), concat!("/tmp/", "wt")];

/// What stands at the top of the repository, besides licences and files that begin with a dot.
const TOP: [&str; 16] = [
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "Makefile",
    "README.md",
    "benches",
    "clippy.toml",
    "deny.toml",
    "dist",
    "examples",
    "fuzz",
    "man",
    "rustfmt.toml",
    "src",
    "tests",
    "tui",
];

/// A Rust file begins by saying what it is.
pub(crate) fn says_what_it_is(file: &File) -> Vec<Finding> {
    if !file.is_rust() || file.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![finding(1, "a file begins with `//!`: what it is, then what it leaves to others")]
}

/// One concept has one word, in code, comments, messages and manuals.
pub(crate) fn speaks_by_the_glossary(file: &File) -> Vec<Finding> {
    let is_deployed = DEPLOYED.iter().any(|path| file.path == *path || file.is_below(path));
    if is_deployed || file.is_below("dist/notices") || file.is_below("tests/fixtures") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        for (retired, word) in RETIRED.iter().filter(|(retired, _)| has_word(line, retired)) {
            findings.push(finding(index + 1, format!("{retired}: the glossary says {word}")));
        }
    }
    findings
}

/// Identifiers of the programs are those of the field.
pub(crate) fn names_by_the_glossary(file: &File) -> Vec<Finding> {
    if !file.is_rust() || !["src", "tui"].iter().any(|top| file.is_below(top)) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for name in file.names() {
        for part in name.segments.iter().flat_map(|segment| parts(segment)) {
            for (retired, better) in RETIRED_IN_NAMES.iter().filter(|(retired, _)| part == *retired)
            {
                findings.push(finding(name.line, format!("{retired}: say {better}")));
            }
        }
        for segment in name.segments.iter().filter(|name| VAGUE_TYPES.contains(&name.as_str())) {
            findings.push(finding(name.line, format!("{segment}: name the type by what it is")));
        }
    }
    findings
}

/// The words of an identifier in lower case: of `SnakeCase`, `snake_case` and `SNAKE_CASE`.
fn parts(identifier: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut before_is_lower = false;
    for c in identifier.chars() {
        if c == '_' || (c.is_uppercase() && before_is_lower) {
            parts.push(String::new());
        }
        before_is_lower = c.is_lowercase();
        parts
            .last_mut()
            .into_iter()
            .for_each(|part| part.extend(c.to_lowercase().filter(|c| *c != '_')));
    }
    parts
}

/// `unsafe` stands only in the excepted modules.
pub(crate) fn is_safe(file: &File) -> Vec<Finding> {
    if !file.is_rust() || UNSAFE.contains(&file.path.as_str()) {
        return Vec::new();
    }
    let names = file.names();
    let broken =
        names.iter().filter(|name| name.begins_with("unsafe") || name.begins_with("unsafe_code"));
    broken
        .map(|name| finding(name.line, format!("`unsafe` is for {} alone", UNSAFE.join(", "))))
        .collect()
}

/// Modules import only those that stand before them.
pub(crate) fn keeps_the_walls(file: &File) -> Vec<Finding> {
    if !file.is_rust() {
        return Vec::new();
    }
    if file.is_below("src/core") {
        keeps_walls(file, "src/core", CORE)
    } else if file.is_below("src/client") || file.is_below("src/mutant") {
        Vec::new() // packages of their own, whose modules are few: Cargo keeps them from the others
    } else if file.is_below("src") {
        keeps_walls(file, "src", DAEMON)
    } else {
        Vec::new()
    }
}

fn keeps_walls(file: &File, package: &str, walls: &[(&str, &[&str])]) -> Vec<Finding> {
    let Some(module) = module(&file.path, package) else {
        return Vec::new();
    };
    let path = module.join("::");
    let applies = |wall: &str| path == wall || path.starts_with(&format!("{wall}::"));
    let rule = walls.iter().filter(|(wall, _)| applies(wall)).max_by_key(|(wall, _)| wall.len());
    let Some((_, allowed)) = rule else {
        let message = format!("tests/tidy/rules.rs does not say what `{path}` may import");
        return vec![finding(1, message)];
    };
    let is_wall = |top: &str| walls.iter().any(|(wall, _)| *wall == top);
    let mut findings = Vec::new();
    for name in file.names() {
        let Some(target) = resolve(&name.segments, &module) else {
            continue;
        };
        if target != module[0] && is_wall(&target) && !allowed.contains(&target.as_str()) {
            findings.push(finding(name.line, format!("`{path}` must not import `{target}`")));
        }
    }
    findings
}

/// The module that a file holds, by the names of those around it; none for the root of a package.
fn module(path: &str, package: &str) -> Option<Vec<String>> {
    let inner = path.strip_prefix(package)?.strip_prefix('/')?.strip_suffix(".rs")?;
    let inner = inner.strip_suffix("/mod").unwrap_or(inner);
    (inner != "lib").then(|| inner.split('/').map(str::to_owned).collect())
}

/// The module at the top of the package that a path leads into, if it leads into the package.
fn resolve(segments: &[String], module: &[String]) -> Option<String> {
    let supers = segments.iter().take_while(|segment| *segment == "super").count();
    let rest = match segments.first()?.as_str() {
        "crate" | "cortexd" => &segments[1..],
        // Further up than to the top, the path goes by a module inside the file: then it stays in it.
        "super" if supers >= module.len() => &segments[supers..],
        _ => return None,
    };
    rest.first().cloned()
}

/// The core has no I/O, no clock and no threads.
pub(crate) fn is_pure(file: &File) -> Vec<Finding> {
    if !file.is_rust() || !file.is_below("src/core") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for name in file.names() {
        if let Some(world) = WORLD.iter().find(|world| name.begins_with(world)) {
            findings.push(finding(name.line, format!("the core takes no `{world}`")));
        }
    }
    findings
}

/// A crate that is one module's business is named there alone.
pub(crate) fn names_crates_in_their_place(file: &File) -> Vec<Finding> {
    if !file.is_rust() || !file.is_below("src") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for name in file.names() {
        for (krate, places) in CRATES {
            if name.segments.len() > 1
                && name.begins_with(krate)
                && !places.iter().any(|place| file.is_below(place))
            {
                let message = format!("`{krate}` is named in {} alone", places.join(", "));
                findings.push(finding(name.line, message));
            }
        }
    }
    findings
}

/// A rule is broken by an attribute of the function that keeps it: no condition that runs in production asks whether
/// one is.
pub(crate) fn asks_for_no_mutant(file: &File) -> Vec<Finding> {
    let defines_it = file.path == "src/core/rule.rs" || file.is_below("src/mutant");
    if !file.is_rust() || !file.is_below("src") || defines_it {
        return Vec::new();
    }
    let asks = |line: &str| line.contains("Rule::") && line.contains(".is_broken()");
    let lines = file.text.lines().enumerate().filter(|(_, line)| asks(line));
    lines.map(|(index, _)| finding(index + 1, "say it by `#[mutant]` at a function")).collect()
}

/// Nothing is left for later, and nothing holds on one machine only. Fixtures are others' words.
pub(crate) fn is_finished(file: &File) -> Vec<Finding> {
    if file.is_below("tests/fixtures") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        for word in UNFINISHED.iter().filter(|word| has_word(line, word)) {
            findings.push(finding(
                index + 1,
                format!("{word}: finish it, or say in words what is not there"),
            ));
        }
        for path in MACHINE_PATHS.iter().filter(|path| has_word(line, path)) {
            findings.push(finding(index + 1, format!("{path} is a directory of one machine")));
        }
    }
    findings
}

fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part)
    })
}

/// A promise that is held is one that was given: its number stands in `tests/promises.md`.
pub(crate) fn holds_known_promises(file: &File, promises: &[String]) -> Vec<Finding> {
    if !file.is_rust() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        for number in held(line) {
            if !promises.iter().any(|promise| promise == number) {
                let message = format!("{number} is no promise of tests/promises.md");
                findings.push(finding(index + 1, message));
            }
        }
    }
    findings
}

/// The numbers after `holds` in a comment.
fn held(line: &str) -> impl Iterator<Item = &str> {
    let comment = line.trim_start().strip_prefix("//").unwrap_or("");
    let list = comment.split_once("holds ").map_or("", |(_, list)| list);
    list.split([',', ' ', ':', '.']).filter(|word| !word.is_empty()).map_while(|word| {
        let digits = word.strip_prefix(|c: char| c.is_ascii_uppercase())?;
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then_some(word)
    })
}

/// The promises: `- V1 …`.
pub(crate) fn promises(list: &str) -> Vec<String> {
    list.lines()
        .filter_map(|line| line.strip_prefix("- ")?.split(' ').next())
        .map(str::to_owned)
        .collect()
}

/// An entry at the repository's top that is neither expected nor ignored by git.
pub(crate) fn is_at_home(name: &str, ignored: &[String]) -> bool {
    TOP.contains(&name)
        || name.starts_with('.')
        || name.starts_with("LICENSE")
        || ignored.iter().any(|path| path == name)
}
