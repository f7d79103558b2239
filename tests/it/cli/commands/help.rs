//! The help of the tool: commands and topics, in this tool's words and in the spellings of the original one.
//! Leaves to unit tests that the topics show commands that exist.

use crate::cli::commands::tool::{check_exit, cortex, run, stderr, stdout};

#[test]
fn help_explains_commands_and_topics_alike() {
    for (arguments, expected) in [
        (&["help"][..], "cortex help TOPIC"),
        (&["--help"], "cortex help TOPIC"),
        (&["help", "put"], "Usage: cortex put"),
        (&["put", "--help"], "Usage: cortex put"),
        (&["help", "acl", "grant"], "Usage: cortex acl grant"),
        (&["help", "create_table"], "Usage: cortex create"),
        (&["help", "help"], "Usage: cortex help"),
        (&["help", "memories"], "MEMORIES"),
        (&["help", "statemachine"], "STATEMACHINE"),
        (&["help", "identities"], "IDENTITIES"),
        (&["help", "moving"], "MOVING"),
        // The topics and spellings of the original tool.
        (&["help", "patterns"], "cortex help memories"),
        (&["help", "create-table"], "Usage: cortex create"),
        (&["help", "drop-table"], "Usage: cortex drop"),
        (&["help", "drop_table"], "Usage: cortex drop"),
        (&["help", "acl"], "Usage: cortex acl"),
        (&["help", "acl", "revoke"], "Usage: cortex acl revoke"),
        (&["help", "acl", "list"], "Usage: cortex acl list"),
        (&["create_table", "--help"], "Usage: cortex create"),
        (&["drop-table", "--help"], "Usage: cortex drop"),
        (&["tables", "--help"], "List your own tables"),
        (&["--version"], "cortex "),
        (&["completions", "bash"], "_cortex"),
        (&["completions", "zsh"], "#compdef cortex"),
        (&["completions", "fish"], "complete -c cortex"),
    ] {
        let output = run(cortex().args(arguments));
        check_exit(&output, 0);
        assert!(stdout(&output).contains(expected), "{arguments:?}: {}", stdout(&output));
        assert_eq!(stderr(&output), "", "{arguments:?}");
    }
}

/// Each word that the original tool's help knows, a command or a topic.
#[test]
fn every_help_topic_of_the_original_tool_answers() {
    for word in [
        "ping",
        "status",
        "tables",
        "create-table",
        "create_table",
        "drop-table",
        "drop_table",
        "get",
        "put",
        "delete",
        "query",
        "all",
        "keys",
        "acl",
        "mesh",
        "identity",
        "scope",
        "info",
        "sync",
        "patterns",
        "memories",
        "statemachine",
        "identities",
    ] {
        let output = run(cortex().args(["help", word]));
        check_exit(&output, 0);
        assert!(stdout(&output).lines().count() > 3, "{word}: {}", stdout(&output));
    }
}
