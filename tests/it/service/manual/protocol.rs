//! cortex-protocol(7) against the methods and the texts of errors.
//! The texts are taken from the source: what a variant says stands there and nowhere else.

use cortex_core::wire::Method;

use super::page::{Page, items};

const REFUSALS: &str = include_str!("../../../../src/core/model/refusal.rs");
const FAULTS: &str = include_str!("../../../../src/store/error.rs");

fn page() -> Page {
    Page::read("cortex-protocol.7")
}

/// The string literal that a piece of source begins with, after its opening quote.
fn literal(source: &str) -> &str {
    source.split_once('"').expect("it is closed").0
}

/// The texts of all refusals, with `{…}` for what differs.
fn refusals() -> Vec<&'static str> {
    let attributes = REFUSALS.split("#[error(").skip(1);
    let texts: Vec<_> =
        attributes.map(|rest| literal(rest.split_once('"').expect("a text").1)).collect();
    assert!(texts.len() >= 25 && texts.contains(&"access_denied"), "{texts:?}");
    texts
}

/// The texts of all faults: the literals of the function that says them.
fn faults() -> Vec<&'static str> {
    let function = FAULTS.split_once("pub fn wire(").expect("it is there").1;
    let body = function.split_once("\n    }\n").expect("it ends").0;
    let texts: Vec<_> = body.split('"').skip(1).step_by(2).collect();
    assert!(texts.len() >= 5 && texts.contains(&"storage_full"), "{texts:?}");
    texts
}

/// True where `written` is `text` with something in the place of each `{…}`.
fn says(written: &str, text: &str) -> bool {
    // What stands between placeholders, in this order; something stands for each placeholder.
    let mut literals = text.split('{').map(|part| part.split_once('}').map_or(part, |(_, it)| it));
    let first = literals.next().unwrap_or_default();
    let Some(mut rest) = written.strip_prefix(first) else {
        return false;
    };
    let mut ends_with_placeholder = false;
    for literal in literals {
        ends_with_placeholder = literal.is_empty();
        let Some(at) = rest.get(1..).and_then(|rest| rest.find(literal)) else {
            return false;
        };
        rest = &rest[1 + at + literal.len()..];
    }
    rest.is_empty() || ends_with_placeholder
}

/// holds V2
#[test]
fn every_method_stands_in_the_page_with_what_it_takes_and_no_other_does() {
    let page = page();
    let mut expected: Vec<_> =
        Method::all().map(|m| format!(".It Ic {} Li \"{}\"", m.name(), m.expects())).collect();
    let listed = items(page.section("METHODS"), ".It Ic ");
    let mut listed: Vec<_> = listed.into_iter().map(|item| item.head).collect();
    expected.sort();
    listed.sort();
    assert_eq!(listed, expected);
}

/// holds V2
#[test]
fn every_error_text_stands_in_the_page_and_every_text_in_the_page_exists() {
    let page = page();
    let listed = items(page.section("ERROR TEXTS"), ".It Li ");
    let listed: Vec<_> = listed.iter().map(|item| &item.head[".It Li ".len()..]).collect();
    let texts = [refusals(), faults()].concat();
    for text in &texts {
        assert!(listed.iter().any(|written| says(written, text)), "{text:?} is not listed");
    }
    for written in listed {
        assert!(texts.iter().any(|text| says(written, text)), "{written:?} is never said");
    }
}
