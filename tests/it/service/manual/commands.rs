//! cortex(1) and cortexd(8) against the command lines that the programs take.
//! What the commands do is tested with the programs.

use std::collections::BTreeSet;

use clap::{Arg, Command, CommandFactory};

use super::page::{Item, Page, items};

/// Marks an item for a command.
const COMMAND: &str = ".It Cm ";

/// The name in an item's head: its words before the options and arguments.
fn name(item: &Item) -> String {
    let words = item.head[COMMAND.len()..].split(' ');
    words.take_while(|word| !matches!(*word, "Oo" | "Op" | "Ar")).collect::<Vec<_>>().join(" ")
}

/// The commands that do something, with their full names: `acl grant`, and not `acl`, which does nothing alone.
fn leaves(command: &Command, prefix: &str) -> Vec<(String, Command)> {
    let mut found = Vec::new();
    for sub in command.get_subcommands() {
        let name = format!("{prefix}{}", sub.get_name());
        found.extend(leaves(sub, &format!("{name} ")));
        if !sub.is_subcommand_required_set() {
            found.push((name, sub.clone()));
        }
    }
    found
}

fn options(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| arg.get_long().is_some())
}

/// Asserts that an option stands in a piece of source, with its short form and with what it may be set to.
fn check_option(arg: &Arg, source: &str, place: &str) {
    let long = arg.get_long().expect("it has one");
    assert!(
        source.contains(&format!("Fl -{long} ")) || source.contains(&format!("Fl -{long}\n")),
        "--{long} does not stand in {place}"
    );
    if let Some(short) = arg.get_short() {
        assert!(source.contains(&format!("Fl {short} ")), "-{short} does not stand in {place}");
    }
}

fn check_values(command: &Command, page: &Page) {
    for arg in command.get_arguments().filter(|arg| arg.get_action().takes_values()) {
        for value in arg.get_possible_values() {
            let written = format!("Cm {}", value.get_name());
            assert!(
                page.source().contains(&written),
                "{written} does not stand in {}",
                page.name()
            );
        }
    }
}

/// holds D4
#[test]
fn every_command_and_long_option_of_cortex_stands_in_its_page() {
    let (page, root) = (Page::read("cortex.1"), cortexd::cli::command());
    let listed = items(page.section("COMMANDS"), COMMAND);
    for (name_of, command) in leaves(&root, "") {
        let item = listed.iter().find(|item| name(item) == name_of);
        let item = item.unwrap_or_else(|| panic!("{name_of} does not stand in cortex(1)"));
        let text = format!("{}\n{}", item.head, item.body);
        for alias in command.get_all_aliases() {
            assert!(text.contains(&format!("Cm {alias}\n")), "{alias} does not stand in cortex(1)");
        }
        for option in options(&command) {
            check_option(option, &text, &format!("cortex(1) under {name_of}"));
        }
        check_values(&command, &page);
    }
    for option in options(&root) {
        check_option(option, page.section("DESCRIPTION"), "cortex(1)");
    }
    check_values(&root, &page);
}

#[test]
fn every_command_and_option_in_the_page_of_cortex_exists() {
    let (page, root) = (Page::read("cortex.1"), cortexd::cli::command());
    let commands = leaves(&root, "");
    for item in items(page.section("COMMANDS"), COMMAND) {
        assert!(commands.iter().any(|(known, _)| *known == name(&item)), "{}", item.head);
    }
    let all = commands.iter().map(|(_, command)| command).chain([&root]);
    let mut known: BTreeSet<_> = all.flat_map(options).filter_map(Arg::get_long).collect();
    known.extend(["help", "version"]); // clap's own
    check_that_options_exist(&page, &known);
}

/// holds D4
#[test]
fn every_command_and_long_option_of_cortexd_stands_in_its_page_and_the_other_way_round() {
    let (page, root) = (Page::read("cortexd.8"), cortexd::daemon::Args::command());
    for option in options(&root) {
        check_option(option, page.section("DESCRIPTION"), "cortexd(8)");
    }
    for (name, command) in leaves(&root, "") {
        assert!(page.section("SYNOPSIS").contains(&format!("Cm {name} ")), "{name}");
        for option in options(&command) {
            check_option(option, page.source(), &format!("cortexd(8) for {name}"));
        }
    }
    let mut known: BTreeSet<_> = options(&root).filter_map(Arg::get_long).collect();
    known.extend(["help", "version"]);
    check_that_options_exist(&page, &known);
}

fn check_that_options_exist(page: &Page, known: &BTreeSet<&str>) {
    let items = page.source().lines().filter(|line| line.starts_with(".It Fl "));
    for long in items.flat_map(|line| line.split("Fl -").skip(1)) {
        let long = long.split(' ').next().expect("a word");
        assert!(known.contains(long), "--{long} in {} does not exist", page.name());
    }
}

/// The numbers are listed in the help, which scripts' authors see first.
#[test]
fn every_exit_status_of_cortex_stands_in_its_page() {
    let help = cortexd::cli::command().get_after_help().expect("it has one").to_string();
    let listed = help.split_once("Exit status: ").expect("they are listed").1;
    let numbers: Vec<_> = listed
        .split(", ")
        .map(|status| status.trim().split_once(' ').expect("a number and a word").0)
        .collect();
    assert!(numbers.len() >= 7, "{numbers:?}");
    let page = Page::read("cortex.1");
    for number in numbers {
        let row = format!(".It {number} Ta ");
        assert!(page.section("EXIT STATUS").contains(&row), "{number} does not stand in cortex(1)");
    }
}
