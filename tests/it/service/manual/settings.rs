//! cortex.toml(5) against the settings: each key with its default, its range, and what puts a change in force.
//! The three are asked of the settings themselves, by giving them values.

use cortexd::daemon::{Args, Config, Settings};
use cortexd::sys::paths::Environment;

use super::page::{Item, Page, items};

/// No key, at the top or in a table.
const NO_KEY: &str = "no_such_key";

/// The keys that the parser itself names when it meets an unknown one.
fn keys_in(table: Option<&str>) -> Option<Vec<String>> {
    let text = match table {
        None => format!("{NO_KEY} = 0"),
        Some(table) => format!("{table} = {{ {NO_KEY} = 0 }}"),
    };
    let error = toml::from_str::<Config>(&text).expect_err("the key is unknown").to_string();
    // A key that is no table takes no table, and that is another error.
    let (_, known) = error.split_once(&format!("unknown field `{NO_KEY}`, expected "))?;
    Some(known.split('`').skip(1).step_by(2).map(str::to_owned).collect())
}

/// Every key, those of tables as `table.key`.
fn keys() -> Vec<String> {
    let mut all = Vec::new();
    for key in keys_in(None).expect("the file is a table") {
        match keys_in(Some(&key)) {
            Some(inner) => all.extend(inner.into_iter().map(|inner| format!("{key}.{inner}"))),
            None => all.push(key),
        }
    }
    all
}

/// The keys that have a value where no file says anything: a mesh is there or not.
fn numbered() -> impl Iterator<Item = String> {
    keys().into_iter().filter(|key| !key.starts_with("mesh."))
}

/// The settings of a file with this text, or what is wrong with it.
fn gather(text: &str) -> Result<Settings, String> {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("cortex.toml");
    std::fs::write(&file, text).expect("written");
    let env = Environment { uid: 1000, home: Some("/home/u".into()), ..Environment::default() };
    let args = Args { config: Some(file), ..Args::default() };
    Settings::gather(&args, &env).map_err(|error| format!("{error:#}"))
}

/// The value of a key where no file says anything, as `--check` shows it.
fn default(key: &str) -> String {
    let summary = gather("").expect("the defaults are valid").summary();
    let line = summary.lines().find_map(|line| line.strip_prefix(&format!("  {key} = ")));
    line.unwrap_or_else(|| panic!("--check does not show {key}")).to_owned()
}

/// The least and the greatest value of a key; none if it is no number.
fn range(key: &str) -> Option<(String, String)> {
    // The larger one is over every bound, the smaller one is also where 32 bits are all a key has.
    let errors = [i64::MAX, u32::MAX.into()].map(|large| gather(&format!("{key} = {large}")).err());
    errors.into_iter().flatten().find_map(|error| {
        let (_, range) = error.split_once("is not between ")?;
        range.split_once(" and ").map(|(least, most)| (least.to_owned(), most.to_owned()))
    })
}

/// Another value for each key of the mesh, which is whole or not there.
const MESH: [(&str, &str, &str); 7] = [
    ("node_name", "'home'", "'office'"),
    ("listen", "'[::]:4712'", "'[::1]:4712'"),
    ("ca_cert", "'/etc/ca.crt'", "'/etc/other.crt'"),
    ("node_cert", "'/etc/home.crt'", "'/etc/other.crt'"),
    ("node_key", "'/etc/home.key'", "'/etc/other.key'"),
    ("crl", "'/etc/ca.crl'", "'/etc/other.crl'"),
    ("nodes", "[]", "[{ name = 'office', host = 'office' }]"),
];

/// The settings of a mesh in which this key has its other value.
fn mesh_with(other: Option<&str>) -> Settings {
    let line = |(key, value, changed): &(&str, &str, &str)| {
        format!("{key} = {}\n", if other == Some(*key) { changed } else { value })
    };
    let keys: String = MESH.iter().map(line).collect();
    gather(&format!("[mesh]\n{keys}")).expect("a valid mesh")
}

/// Whether a running daemon cannot take up a change of this key.
fn needs_a_restart(key: &str) -> bool {
    if let Some(inner) = key.strip_prefix("mesh.") {
        let (now, new) = (mesh_with(None), mesh_with(Some(inner)));
        assert_ne!(now.mesh, new.mesh, "nothing changes {key}");
        return now.fixed_changes(&new).contains(&key);
    }
    let numbers = range(key).into_iter().flat_map(|(least, most)| [least, most]);
    let words = ["'debug'", "'session'", "true", "false"].map(str::to_owned);
    let now = gather("").expect("the defaults are valid");
    let mut others =
        numbers.chain(words).filter_map(|value| gather(&format!("{key} = {value}")).ok());
    let new = others.find(|new| *new != now).unwrap_or_else(|| panic!("nothing changes {key}"));
    now.fixed_changes(&new).contains(&key)
}

fn key_of(item: &Item) -> &str {
    item.head.split(' ').nth(2).expect("a key")
}

fn documented() -> Vec<Item> {
    items(Page::read("cortex.toml.5").section("KEYS"), ".It Ic ")
}

/// The text of an item without its macros, in one line.
fn flat(item: &Item) -> String {
    let lines = item.body.lines().map(|line| match line.split_once(' ') {
        Some((mac, rest)) if mac.starts_with('.') => rest,
        _ => line,
    });
    lines.collect::<Vec<_>>().join(" ")
}

/// holds D4
#[test]
fn every_key_stands_in_the_page_and_every_key_in_the_page_exists() {
    let (keys, documented) = (keys(), documented());
    assert!(keys.len() >= 15 && keys.contains(&"limits.scans".to_owned()), "{keys:?}");
    for key in &keys {
        let times = documented.iter().filter(|item| key_of(item) == key).count();
        assert_eq!(times, 1, "{key} in cortex.toml(5)");
    }
    for item in &documented {
        assert!(keys.iter().any(|key| key == key_of(item)), "{} does not exist", key_of(item));
    }
}

#[test]
fn every_key_stands_there_with_its_default_and_its_range() {
    for item in documented() {
        let (key, text) = (key_of(&item), flat(&item));
        let Some((least, most)) = range(key) else {
            continue;
        };
        let value = default(key);
        // What depends on the machine is told in words.
        let told = text.contains("Default: ")
            || [',', ' ', '.'].iter().any(|end| text.contains(&format!("Default {value}{end}")));
        assert!(told, "the default of {key} is {value}: {text}");
        // A bound may be another key.
        let bounds = numbered().filter(|other| default(other) == most).chain([most.clone()]);
        let mut written = bounds.map(|most| format!("from {least} to {most}"));
        assert!(
            written.any(|range| text.contains(&range)),
            "{key}: from {least} to {most}: {text}"
        );
    }
}

#[test]
fn every_key_stands_there_with_what_puts_a_change_in_force() {
    for item in documented() {
        let (key, text) = (key_of(&item), flat(&item));
        let restart = needs_a_restart(key);
        assert_eq!(text.contains("Needs a restart."), restart, "{key}");
        assert_eq!(text.contains("A reload is enough."), !restart, "{key}");
    }
}

#[test]
fn every_example_of_settings_is_taken() {
    let examples = Page::read("cortex.toml.5").displays("EXAMPLES");
    let settings: Vec<_> = examples.iter().filter(|text| !text.starts_with("error: ")).collect();
    assert!(settings.len() >= 2, "{examples:?}");
    for text in settings {
        assert!(gather(text).is_ok(), "{text}: {:?}", gather(text).err());
    }
}
