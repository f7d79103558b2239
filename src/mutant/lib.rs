//! Marks the function that keeps a rule of replication, so that a simulation can break the rule and see that it is
//! missed: mutation testing (DeMillo, Lipton and Sayward, "Hints on Test Data Selection", 1978) with all mutants in
//! one build, chosen at run time (Untch, Offutt and Harrold, "Mutation analysis using mutant schemata", 1993).
//!
//! The function itself reads as if there were no mutants. A build without debug assertions has none.

use proc_macro::{Delimiter, Group, TokenStream, TokenTree};

/// What a function does on a thread on which a rule of `cortex_core::rule::Rule` is broken:
///
/// - `#[mutant(Rule => value)]`: it returns the value.
/// - `#[mutant(Rule, parameter = value)]`: it goes on with that value for the parameter.
///
/// The value may use the function's parameters.
#[proc_macro_attribute]
pub fn mutant(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let broken = match mutation(&attribute.to_string()) {
        Ok(broken) => broken,
        Err(why) => return format!("compile_error!({why:?});").parse().expect("tokens"),
    };
    let mut item: Vec<TokenTree> = item.into_iter().collect();
    match item.pop() {
        Some(TokenTree::Group(body)) if body.delimiter() == Delimiter::Brace => {
            let statements = [broken, body.stream()].into_iter().collect();
            let mut changed = Group::new(Delimiter::Brace, statements);
            changed.set_span(body.span());
            item.into_iter().chain([TokenTree::Group(changed)]).collect()
        }
        _ => "compile_error!(\"a function with a body is expected\");".parse().expect("tokens"),
    }
}

/// The statement that comes first in a function.
fn mutation(attribute: &str) -> Result<TokenStream, String> {
    let expected = || "expected `Rule => value` or `Rule, parameter = value`".to_owned();
    let is_broken = |rule: &str| format!("::cortex_core::rule::Rule::{}.is_broken()", rule.trim());
    let returns = attribute.find("=>");
    let shadows = attribute.find(',');
    let statement = match (returns, shadows) {
        (Some(at), comma) if comma.is_none_or(|comma| at < comma) => {
            let (rule, value) = (&attribute[..at], &attribute[at + 2..]);
            format!("#[cfg(debug_assertions)] if {} {{ return {value}; }}", is_broken(rule))
        }
        (_, Some(comma)) => {
            let rule = &attribute[..comma];
            let (name, value) = attribute[comma + 1..].split_once('=').ok_or_else(expected)?;
            format!(
                "#[cfg(debug_assertions)] let {name} = if {} {{ {value} }} else {{ {name} }};",
                is_broken(rule)
            )
        }
        (_, None) => return Err(expected()),
    };
    statement.parse().map_err(|_| expected())
}
