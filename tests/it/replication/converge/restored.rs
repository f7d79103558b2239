//! A machine that was restored has forgotten what it had decided since its backup: what others know of that counts.

use std::fs;
use std::path::{Path, PathBuf};

use rmpv::Value;

use crate::replication::converge::{
    cluster::{Cluster, there},
    daemon::wait_until,
    rpc::field,
};

/// Has home and office, where everybody may read and write a table of home that is everywhere, and a backup of home.
fn with_backup() -> (Cluster, PathBuf) {
    let mesh = Cluster::with_line("home", "office");
    mesh.create("home", "notes", "all");
    mesh.put("home", "notes", 1, "milk");
    mesh.wait_for("office", &there("home", "notes"), 1, Some("milk"));
    let backup = mesh.node("home").connect().call("backup", &[]).expect("a backup");
    let parts = backup.as_array().expect("its parts").iter();
    let bytes: Vec<u8> = parts.flat_map(|part| part.as_slice().expect("bytes").to_vec()).collect();
    let file = mesh.node("home").directory().join("backup");
    fs::write(&file, bytes).expect("written");
    (mesh, file)
}

/// Puts the backup in the place of home's database.
fn restore(mesh: &mut Cluster, backup: &Path) {
    mesh.node_mut("home").stop();
    cortexd::store::restore(backup, &mesh.node("home").data_dir()).expect("restored");
}

fn decide(mesh: &Cluster, arguments: &[&str]) {
    let decided = mesh.node("home").cortex(arguments);
    assert!(decided.status.success(), "{decided:?}");
}

fn scope(mesh: &Cluster, at: &str, table: &str) -> Option<Value> {
    let told = mesh.node(at).connect().call("get_scope", &[table.into()]).ok()?;
    field(&told, "node_scope").cloned()
}

/// Gives rights on home's table, or takes them away.
fn permit(mesh: &Cluster, method: &str, who: &str, rights: &str) {
    let params = [who.into(), "notes".into(), rights.into()];
    mesh.node("home").connect().call(method, &params).expect("decided");
}

/// Whether somebody has any right on home's table, as far as home knows. Rows of it travel after what it knows.
fn has_rights(mesh: &Cluster, who: &str) -> bool {
    let rows = mesh.node("home").connect().call("acl_list", &[]).expect("a list");
    rows.to_string().contains(&format!("\"{who}\""))
}

/// holds S4, K8: with another certificate it signs anew what it had decided before the backup, and decides nothing by
/// that.
#[test]
fn a_new_certificate_brings_back_nothing_that_was_decided_after_the_backup() {
    let (mut mesh, backup) = with_backup();
    let notes = &there("home", "notes");
    decide(&mesh, &["scope", "notes", "home,office"]);
    permit(&mesh, "acl_revoke", "*", "read,write");
    let narrow = Value::Array(vec!["home".into(), "office".into()]);
    mesh.put("home", "notes", 2, "tea");
    mesh.wait_for("office", notes, 2, Some("tea"));
    assert_eq!(scope(&mesh, "office", notes), Some(narrow.clone()));
    mesh.ca.issue("home");
    restore(&mut mesh, &backup);
    mesh.node_mut("home").restart();
    mesh.wait_for_links();
    wait_until("home has heard of what it has forgotten", || {
        scope(&mesh, "home", "notes") == Some(narrow.clone()) && !has_rights(&mesh, "*")
    });
    assert_eq!(scope(&mesh, "office", notes), Some(narrow));
}
