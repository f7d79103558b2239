//! The manual pages say what the programs do: every command, option, setting, method and error text stands
//! there, nothing stands there that does not exist, and the transcripts are what really happens.
//! Whether they are well written is left to their readers.

mod bus;
mod commands;
mod examples;
mod page;
mod protocol;
mod settings;

use page::Page;

use crate::support::daemon;

/// holds D4
#[test]
fn every_page_passes_the_lint() {
    let pages = Page::all();
    assert!(pages.len() >= 4, "only {} pages were found", pages.len());
    for page in pages {
        assert_eq!(page.lint(), "", "mandoc -T lint -W warning man/{}", page.name());
    }
}
