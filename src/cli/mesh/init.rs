//! The command `mesh init`: this machine becomes the first node of a mesh, with the CA on it.
//! Leaves starting the mesh to the daemon, which reads its configuration anew.

use std::path::Path;

use clap::Args;
use cortex_core::model::NodeName;

use super::place::{Bundle, MeshPaths, Prepared, occupied};
use super::report::{node_name, now, path, print};
use super::settings::{Node, PORT, Settings};
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::note;
use crate::pki::files::IfExists;
use crate::pki::{Authority, Duplicate, NewKey, shown};

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// This machine's name in the mesh: a-z, 0-9 and inner hyphens
    #[arg(value_parser = node_name)]
    name: NodeName,
    /// Where others reach this machine: a DNS name or an address
    host: String,
    /// The port of the mesh
    #[arg(long, value_name = "PORT", default_value_t = PORT)]
    port: u16,
}

pub(crate) fn run(args: &Init, context: &Context) -> Result<(), Failure> {
    let now = now();
    let places = MeshPaths::find(context)?;
    let configuration = places.configuration()?;
    if let Some(settings) = Settings::read(configuration)? {
        return Err(is_node_already(&settings.node_name, configuration));
    }
    let target = places.node_dir();
    if target.exists() {
        return Err(occupied(&target)
            .hint("It is left over from an earlier mesh. To begin anew, move it away"));
    }
    places.make_state()?;
    let mut authority = authority(&places, now)?;
    authority.may_issue(&args.name, &args.host, Duplicate::Refuse, now)?;
    let key = NewKey::generate()?;
    let issued = authority.issue(&args.name, &args.host, &key.public()?, Duplicate::Refuse, now)?;
    let bundle = Bundle {
        ca_cert: authority.pem(),
        node_cert: &issued.pem,
        node_key: &key.pem(),
        crl: &authority.revocation_list()?,
    };
    let prepared = Prepared::write(&target, &bundle, places.owner())?;
    prepared.check(&args.name, now)?;
    let files = prepared.put(IfExists::Keep)?;
    let own = Node { name: args.name.to_string(), host: args.host.clone(), port: args.port };
    let fragment = Settings::new(&args.name, args.port, &files, vec![own]).write(configuration)?;
    note("next: systemctl restart cortexd. To ask another machine in: cortex mesh invite NAME");
    print(
        context,
        vec![
            ("node", args.name.to_string().into()),
            ("mesh", authority.mesh().to_string().into()),
            ("expires", shown(issued.not_after).into()),
            ("directory", path(&target)),
            ("configuration", path(&fragment)),
        ],
    )
}

/// The CA of this machine, made if there is none.
fn authority(places: &MeshPaths, now: u64) -> Result<Authority, Failure> {
    let dir = places.ca_dir(None);
    if Authority::is_in(&dir) {
        Ok(Authority::open(&dir)?)
    } else {
        Ok(Authority::create(&dir, IfExists::Keep, now)?)
    }
}

/// Why a machine does not become another node.
pub(super) fn is_node_already(name: &str, configuration: &Path) -> Failure {
    let file = configuration.display();
    Failure::new(Exit::Failed, format!("this machine is the node `{name}` of a mesh already"))
        .hint(format!("Its configuration says so, under [mesh] in {file} or a file of {file}.d"))
}
