//! The command `help`: what a command does, and topics that go beyond one command.
//! Leaves the help of commands to `clap`.

use clap::{Args, CommandFactory};

use super::context::Context;
use super::failure::{Exit, Failure};
use super::{Cli, output};

#[derive(Debug, Args)]
pub(crate) struct Help {
    /// A command (with its subcommand, as in `acl grant`) or a topic
    #[arg(value_name = "COMMAND|TOPIC")]
    words: Vec<String>,
}

/// What stands under the list of commands.
pub(super) const OVERVIEW: &str = "\
Topics, each explained by `cortex help TOPIC`:
  patterns      what tables are good for: an overview of these topics
  memories      use tables as memories: for agents and scripts that come and go
  statemachine  run a small state machine in a table
  identities    whose a table is, and who may do what to it
  machines      a mesh of machines that know each other
  replicas      tables on several machines: are they the same, and what if not
  moving        move over from the original cortexd (v1), and what is different

Data is JSON on standard output; messages are on standard error.
Exit status: 0 ok, 1 failed, 2 usage, 3 timeout, 4 not authorised, 8 daemon not running, 10 not found.";

/// The topics, by name.
const TOPICS: [(&str, &str); 7] = [
    ("patterns", include_str!("topics/patterns.txt")),
    ("memories", include_str!("topics/memories.txt")),
    ("statemachine", include_str!("topics/statemachine.txt")),
    ("identities", include_str!("topics/identities.txt")),
    ("machines", include_str!("topics/machines.txt")),
    ("replicas", include_str!("topics/replicas.txt")),
    ("moving", include_str!("topics/moving.txt")),
];

pub(crate) fn run(args: &Help, context: &Context) -> Result<(), Failure> {
    if let [word] = args.words.as_slice()
        && let Some((_, text)) = TOPICS.iter().find(|(name, _)| name == word)
    {
        return output::text(text);
    }
    let mut command = Cli::command().color(context.color());
    // Fills in the full names, so that the usage of `put` reads `cortex put`.
    command.build();
    if args.words.is_empty() {
        return command.print_help().map_err(output::writing);
    }
    let mut found = &mut command;
    for word in &args.words {
        found = found.find_subcommand_mut(word).ok_or_else(|| {
            Failure::new(
                Exit::Usage,
                format!("no command and no topic is called {}", args.words.join(" ")),
            )
            .hint("To list them: cortex help")
        })?;
    }
    found.print_long_help().map_err(output::writing)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The commands that a topic shows: lines indented by four, `cortex` at their start or after a pipe.
    fn examples(text: &str) -> impl Iterator<Item = &str> {
        let lines = text.lines().filter_map(|line| line.strip_prefix("    "));
        lines.filter_map(|line| line.find("cortex ").map(|start| &line[start..]))
    }

    /// Splits as a shell does, as far as the topics need it: spaces, and quotes of both kinds.
    fn shell_words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut quote = None;
        for c in line.chars() {
            match (quote, c) {
                (None, '|') => break,
                (None, ' ') => words.push(String::new()),
                (None, '\'' | '"') => quote = Some(c),
                (Some(open), _) if c == open => quote = None,
                _ => words.last_mut().expect("there is always a word").push(c),
            }
        }
        words
            .into_iter()
            .filter(|word| !word.is_empty())
            .take_while(|word| !word.starts_with(['#', ';']))
            .collect()
    }

    #[test]
    fn every_example_in_the_topics_is_a_command_that_exists() {
        for (topic, text) in TOPICS {
            let mut count = 0;
            for example in examples(text) {
                let parsed = super::super::parse(
                    shell_words(example).into_iter().map(Into::into).collect(),
                    clap::ColorChoice::Never,
                );
                assert!(parsed.is_ok(), "{topic}: {example}: {}", parsed.expect_err("it failed"));
                count += 1;
            }
            assert!(count > 3, "{topic} shows how");
        }
    }

    #[test]
    fn topics_fit_a_terminal_and_stand_in_the_overview() {
        for (topic, text) in TOPICS {
            assert!(
                text.lines().all(|line| line.chars().count() <= 80),
                "{topic} has a line over 80 columns"
            );
            assert!(OVERVIEW.contains(&format!("  {topic} ")), "{topic}");
        }
    }

    #[test]
    fn no_topic_hides_a_command() {
        for (topic, _) in TOPICS {
            assert!(Cli::command().find_subcommand(topic).is_none(), "{topic}");
        }
    }
}
