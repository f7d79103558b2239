//! org.cortexd.Cortex1(5) against the interfaces that are shipped and the errors that there are.
//! Leaves to `tests/it/service/bus` that the interfaces are the daemon's, and the transcripts of the page.

use std::fs;
use std::path::Path;

use super::page::{Page, items};

const PAGE: &str = "org.cortexd.Cortex1.5";

const INTERFACES: [&str; 5] = [
    "org.cortexd.Cortex1.Manager",
    "org.cortexd.Cortex1.Table",
    "org.cortexd.Cortex1.Node",
    "org.cortexd.Cortex1.Identity",
    "org.cortexd.Cortex1.Job",
];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The value of an attribute of an XML element that stands on a line.
fn attribute<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!(" {name}=\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

/// The heads that the page must have for an interface: members with the types of their arguments.
fn expected(interface: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let mut member = None;
    let mut results = String::new();
    for line in read(&format!("dist/dbus-1/interfaces/{interface}.xml")).lines().map(str::trim) {
        let name = attribute(line, "name");
        if line.starts_with("<method") || line.starts_with("<signal") {
            member = Some(format!(".It Fn {}", name.expect("a name")));
        } else if let (true, Some(head)) = (line.starts_with("<arg"), &mut member) {
            let (name, kind) = (name.expect("a name"), attribute(line, "type").expect("a type"));
            if attribute(line, "direction") == Some("out") {
                results.push_str(&format!(" No -> Li {kind} Ar {name}"));
            } else {
                head.push_str(&format!(" \"{kind} {name}\""));
            }
        } else if line.starts_with("</method") || line.starts_with("</signal") {
            heads.push(member.take().expect("it was begun") + &std::mem::take(&mut results));
        } else if line.starts_with("<property") {
            heads.push(format!(".It Va {}", name.expect("a name")));
        }
    }
    heads
}

/// The part of the page on an interface.
fn part<'a>(page: &'a Page, interface: &str) -> &'a str {
    let section = page.section("INTERFACES");
    let (_, part) = section.split_once(&format!(".Ss {interface}\n")).expect("its part");
    part.split_once("\n.Ss ").map_or(part, |(part, _)| part)
}

/// The heads that the page has: of properties one each, without their types.
fn documented(page: &Page, interface: &str) -> Vec<String> {
    let part = part(page, interface);
    let mut heads: Vec<_> = items(part, ".It Fn ").into_iter().map(|item| item.head).collect();
    for item in items(part, ".It Va ") {
        let (names, _) = item.head.split_once(" Pq ").expect("a type");
        let names = names.trim_start_matches(".It ").split(" , ");
        heads.extend(names.map(|name| format!(".It {}", name.trim_end_matches([' ', ',']))));
    }
    heads
}

/// holds D2
#[test]
fn every_member_of_every_interface_stands_in_the_page_and_no_others() {
    let page = Page::read(PAGE);
    for interface in INTERFACES {
        let (mut expected, mut documented) = (expected(interface), documented(&page, interface));
        assert!(!expected.is_empty(), "{interface} has no members");
        expected.sort();
        documented.sort();
        assert_eq!(expected, documented, "{interface}");
    }
}

/// holds D2
#[test]
fn every_error_stands_in_the_page_and_no_others() {
    let source = read("src/edge/bus/error.rs");
    let names = source.split('"').filter(|text| {
        text.starts_with("org.cortexd.Cortex1.Error.")
            || text.starts_with("org.freedesktop.DBus.Error.")
    });
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names.dedup();
    assert!(names.len() > 10, "{names:?}");
    let page = Page::read(PAGE);
    let documented = items(page.section("D-BUS ERRORS"), ".It Li ");
    let mut documented: Vec<_> =
        documented.iter().filter_map(|item| item.head.rsplit(' ').next()).collect();
    documented.sort_unstable();
    assert_eq!(names, documented);
}

/// holds D2
#[test]
fn every_action_of_polkit_stands_in_the_page_and_is_asked_for() {
    let policy = read("dist/polkit-1/actions/org.cortexd.cortex1.policy");
    let lines = policy.lines().filter(|line| line.trim().starts_with("<action "));
    let actions: Vec<_> = lines.map(|line| attribute(line, "id").expect("an id")).collect();
    assert!(!actions.is_empty(), "{policy}");
    let page = Page::read(PAGE);
    let documented = items(page.section("ACTIONS"), ".It Li ");
    let documented: Vec<_> =
        documented.iter().filter_map(|item| item.head.rsplit(' ').next()).collect();
    assert_eq!(actions, documented);
    let asked = read("src/edge/bus/polkit.rs");
    for action in actions {
        assert!(asked.contains(&format!("\"{action}\"")), "nobody asks for {action}");
    }
}
