//! Circles of files that import each other. A file's tests may import what stands above it.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::File;

/// Which modules each module imports.
type Imports = BTreeMap<Vec<String>, BTreeSet<Vec<String>>>;

/// The modules below a directory of `src/` that import each other in a circle, in the order of their imports; none
/// where there is no circle.
pub(crate) fn circle(files: &[File], area: &str) -> Vec<String> {
    let below = files.iter().filter(|file| file.is_rust() && file.is_below(area));
    let modules: BTreeMap<_, _> = below.map(|file| (module(&file.path), file)).collect();
    let imports = modules.iter().filter(|(module, _)| module.last().is_none_or(|m| m != "tests"));
    let imports =
        imports.map(|(module, file)| (module.clone(), imports_of(file, module, &modules)));
    walk(&remaining(imports.collect())).iter().map(|module| module.join("::")).collect()
}

fn module(path: &str) -> Vec<String> {
    let inner = path.strip_prefix("src/").and_then(|path| path.strip_suffix(".rs"));
    let inner = inner.expect("a file of the package");
    inner.strip_suffix("/mod").unwrap_or(inner).split('/').map(str::to_owned).collect()
}

fn imports_of(
    file: &File,
    module: &[String],
    modules: &BTreeMap<Vec<String>, &File>,
) -> BTreeSet<Vec<String>> {
    let end = file.text.find("\nmod tests {").unwrap_or(file.text.len());
    let code = File { path: file.path.clone(), text: file.text[..end].to_owned() };
    let paths = code.names().into_iter().filter_map(|name| absolute(&name.segments, module));
    let imports = paths.filter_map(|mut path| {
        while !path.is_empty() && !modules.contains_key(&path) {
            path.pop();
        }
        (!path.is_empty() && path != module).then_some(path)
    });
    imports.collect()
}

/// A path from the top of the package. One that begins with no keyword may lead into a module below this one.
fn absolute(segments: &[String], module: &[String]) -> Option<Vec<String>> {
    if segments.len() == 1 {
        return None; // a name of its own, or the `super` of `pub(super)`
    }
    let supers = segments.iter().take_while(|segment| *segment == "super").count();
    let (above, rest) = match segments.first()?.as_str() {
        "crate" | "cortexd" => (&[][..], &segments[1..]),
        "self" => (module, &segments[1..]),
        "super" => (module.get(..module.len().checked_sub(supers)?)?, &segments[supers..]),
        _ => (module, segments),
    };
    Some([above, rest].concat())
}

/// What is left of the modules once those are gone that import none of the others: circles, and what leads to them.
fn remaining(mut imports: Imports) -> Imports {
    loop {
        let known: BTreeSet<_> = imports.keys().cloned().collect();
        let leads_on = |targets: &BTreeSet<Vec<String>>| !targets.is_disjoint(&known);
        let before = imports.len();
        imports.retain(|_, targets| leads_on(targets));
        if imports.len() == before {
            return imports;
        }
    }
}

/// Follows imports until a module comes again.
fn walk(imports: &Imports) -> Vec<Vec<String>> {
    let mut passed: Vec<Vec<String>> = Vec::new();
    let mut next = imports.keys().next();
    while let Some(module) = next {
        if let Some(start) = passed.iter().position(|earlier| earlier == module) {
            return passed.split_off(start);
        }
        passed.push(module.clone());
        next = imports[module].iter().find(|target| imports.contains_key(*target));
    }
    Vec::new()
}
