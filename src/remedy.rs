//! What an administrator does about another node that is not reached, by the text in which the daemon gives the reason.
//! The texts are those of refusals, of links that have ended, and of TLS; `explain` and `doctor` ask the same here.

/// What brings a node back that is not reached. `own` is this node; `why` what the last attempt to reach the other
/// has come to, none where there was none yet.
#[must_use]
pub fn for_node(node: &str, own: &str, why: Option<&str>) -> String {
    let why = why.unwrap_or_default();
    let says = |text: &str| why.contains(text);
    // What is not wanted there is what this node has presented.
    let is_ours = why.starts_with("it is not wanted there") || says("received fatal alert");
    let whose = if is_ours { own } else { node };
    if says("another database already uses its name") {
        let where_to = if is_ours { format!("on {node}") } else { "here".to_owned() };
        return format!(
            "if {whose} was installed again, {where_to}: cortex mesh remove-node {whose}; otherwise stop the second machine of that name"
        );
    }
    if says("was removed from the mesh") {
        return format!(
            "{whose} was put out with its database; it comes back with an empty data directory: cortex-mesh(7), Replaced. Otherwise take {node} out of mesh.nodes here, and then: cortex mesh reload"
        );
    }
    if says("is revoked") || says("CertificateRevoked") {
        return format!(
            "take {node} out of mesh.nodes, and then: cortex mesh reload. If {whose} is to come back, where the CA is: cortex mesh add-node {whose} HOST --force"
        );
    }
    if says("is not valid yet") {
        return clocks(node, whose);
    }
    if says("CertificateExpired") {
        // TLS has one alert for what has ended and for what has not begun.
        return format!("{}; if both are right, {}", clocks_of(node), renewal(whose));
    }
    if says("certificate has expired") {
        return renewal(whose);
    }
    if says("revocation list has expired") {
        return NEW_LIST.to_owned();
    }
    if says("names the node") {
        return format!(
            "where the CA is, with a host that is no node's name: cortex mesh add-node {whose} HOST --force"
        );
    }
    if says("is not configured") || says("is configured here") {
        return format!("on {node}: add {own} to mesh.nodes, and then: cortex mesh reload");
    }
    format!("on {node}: systemctl start cortexd; its own view: cortex doctor")
}

/// What renews a node's certificate.
#[must_use]
pub fn renewal(node: &str) -> String {
    format!("where the CA is: cortex mesh renew {node}")
}

/// What renews a revocation list.
pub const NEW_LIST: &str = "copy a new list from where the CA is, and then: cortex mesh reload";

fn clocks_of(node: &str) -> String {
    format!("look at the clocks here and on {node}: timedatectl set-ntp true")
}

/// A certificate that is not valid yet was made by a clock that is later than the one that judges it.
fn clocks(node: &str, whose: &str) -> String {
    format!(
        "one clock is wrong, here, on {node}, or where the certificate of {whose} was made: timedatectl set-ntp true on each"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_own_remedy_and_a_revoked_node_is_not_to_be_started() {
        for (why, wanted) in [
            (None, "on office: systemctl start cortexd"),
            (Some("127.0.0.1:4712: Connection refused"), "on office: systemctl start cortexd"),
            (Some("1.2.3.4:4712: the certificate is revoked"), "cortex mesh add-node office HOST"),
            (
                Some("it was lost: received fatal alert: CertificateRevoked"),
                "cortex mesh add-node home HOST",
            ),
            (Some("x: the certificate is not valid yet"), "one clock is wrong"),
            (Some("x: the certificate has expired"), "where the CA is: cortex mesh renew office"),
            (
                Some("it was lost: received fatal alert: CertificateExpired"),
                "look at the clocks here and on office: timedatectl set-ntp true; if both are right, where the CA is: cortex mesh renew home",
            ),
            (
                Some(
                    "x: the certificate of office names the node home too, for which it could pass",
                ),
                "cortex mesh add-node office HOST --force",
            ),
            (
                Some("it is not wanted there: the node was removed from the mesh"),
                "home was put out with its database",
            ),
        ] {
            let found = for_node("office", "home", why);
            assert!(found.contains(wanted), "{why:?}: {found}");
            assert_eq!(found.contains("systemctl start"), wanted.contains("systemctl start"));
        }
    }
}
