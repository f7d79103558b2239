//! Where the CA, this node's credentials and its configuration are, and whose files they shall be.
//! Leaves what is in them to `pki` and `settings`.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown, lchown};
use std::path::{Path, PathBuf};

use super::report::io_failure;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::pki::files::{self, IfExists, Owner, Readers};
use crate::pki::{Credentials, Files};
use crate::sys::paths::{self, Environment};
use crate::sys::random;

/// The user that the packaged service runs as.
const SERVICE_USER: &str = "cortex";

/// Where things of the daemon that is meant are.
#[derive(Debug)]
pub(super) struct MeshPaths {
    state: PathBuf,
    /// The configuration file; its fragments are beside it.
    configuration: Option<PathBuf>,
    uid: u32,
}

impl MeshPaths {
    pub(super) fn find(context: &Context) -> Result<Self, Failure> {
        let env = Environment::of_this_process();
        let usual = (env.uid == 0).then_some(Path::new(paths::SYSTEM_CONFIGURATION));
        let configured = context.configuration(usual);
        let state = paths::first_named(None, env.cortex_data_dir.clone(), configured.data_dir)
            .or_else(|| paths::default_data_dir(&env))
            .ok_or_else(|| {
                Failure::new(Exit::Failed, "no data directory is known: HOME is not set")
                    .hint("Name one with CORTEX_DATA_DIR")
            })?;
        let state = std::path::absolute(&state).map_err(|e| io_failure("find", &state, &e))?;
        Ok(Self { state, configuration: configured.file, uid: env.uid })
    }

    /// The CA's directory, unless another is named.
    pub(super) fn ca_dir(&self, named: Option<&Path>) -> PathBuf {
        named.map_or_else(|| self.state.join("ca"), Path::to_owned)
    }

    /// The directory of this node's credentials.
    pub(super) fn node_dir(&self) -> PathBuf {
        self.state.join("mesh")
    }

    /// The configuration file, which must be there: a fragment beside nothing would be read by nobody.
    pub(super) fn configuration(&self) -> Result<&Path, Failure> {
        let Some(file) = &self.configuration else {
            return Err(Failure::new(Exit::Usage, "which configuration is meant?")
                .hint("A user's own daemon reads the one that it is started with: --config FILE. The machine's is root's: sudo cortex mesh …"));
        };
        match fs::metadata(file) {
            Ok(_) => Ok(file),
            Err(error) => Err(io_failure("read the configuration", file, &error)),
        }
    }

    /// Who shall own what the daemon reads: the owner of its state.
    pub(super) fn owner(&self) -> Option<Owner> {
        if self.uid != 0 {
            return None;
        }
        fs::metadata(&self.state).ok().map(|meta| (meta.uid(), meta.gid()))
    }

    /// Makes the state directory where no daemon has run yet. It is the service's: systemd gives the whole
    /// tree to the service otherwise, and the CA in it with it.
    pub(super) fn make_state(&self) -> Result<(), Failure> {
        if self.state.is_dir() {
            return Ok(());
        }
        files::private_directory(&self.state).map_err(|e| io_failure("make", &self.state, &e))?;
        let service = nix::unistd::User::from_name(SERVICE_USER).ok().flatten();
        match service {
            Some(user) if self.uid == 0 && self.state == Path::new(paths::SYSTEM_DATA_DIR) => {
                chown(&self.state, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
                    .map_err(|e| io_failure("give away", &self.state, &e))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// A node's four files, PEM.
#[derive(Debug)]
pub(super) struct Bundle<'a> {
    pub(super) ca_cert: &'a str,
    pub(super) node_cert: &'a str,
    pub(super) node_key: &'a str,
    pub(super) crl: &'a str,
}

/// A directory of credentials that is complete, but not in its place yet. Dropped, it is removed.
#[derive(Debug)]
pub(super) struct Prepared {
    dir: PathBuf,
    target: PathBuf,
}

impl Prepared {
    /// Writes the files into a directory beside `target`.
    pub(super) fn write(
        target: &Path,
        bundle: &Bundle<'_>,
        owner: Option<Owner>,
    ) -> Result<Self, Failure> {
        let unique = u128::from_be_bytes(random::id());
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let dir = target.with_file_name(format!(".{name}.{unique:032x}"));
        if let Some(parent) = target.parent() {
            files::private_directory(parent).map_err(|e| io_failure("make", parent, &e))?;
        }
        let prepared = Self { dir, target: target.to_owned() };
        prepared.fill(bundle, owner).map_err(|e| io_failure("write", target, &e))?;
        Ok(prepared)
    }

    fn fill(&self, bundle: &Bundle<'_>, owner: Option<Owner>) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(&self.dir)?;
        let Files { ca_cert, node_cert, node_key, crl } = self.files();
        let put = |path: &Path, text: &str, readers| {
            files::write(path, text.as_bytes(), readers, IfExists::Keep, owner)
        };
        put(&ca_cert, bundle.ca_cert, Readers::Everybody)?;
        put(&node_cert, bundle.node_cert, Readers::Everybody)?;
        put(&crl, bundle.crl, Readers::Everybody)?;
        put(&node_key, bundle.node_key, Readers::Owner)?;
        match owner {
            // Its parent may be the service's, which could put a link in its place meanwhile.
            Some((uid, gid)) => lchown(&self.dir, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }

    /// The files where they are now.
    fn files(&self) -> Files {
        Files::in_dir(&self.dir)
    }

    /// Judges them as the daemon will.
    pub(super) fn check(
        &self,
        node: &cortex_core::model::NodeName,
        now: u64,
    ) -> Result<Credentials, Failure> {
        Ok(Credentials::load(&self.files(), node, now)?)
    }

    /// Puts the directory in its place, all files at once. What is there is kept under another name.
    pub(super) fn put(self, present: IfExists) -> Result<Files, Failure> {
        let target = &self.target;
        if target.exists() {
            if present == IfExists::Keep {
                return Err(occupied(target));
            }
            fs::rename(target, backup_path(target))
                .map_err(|e| io_failure("move away", target, &e))?;
        }
        fs::rename(&self.dir, target).map_err(|e| io_failure("make", target, &e))?;
        Ok(Files::in_dir(target))
    }
}

/// A name beside a directory that nothing has yet.
fn backup_path(dir: &Path) -> PathBuf {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let mut names = (1_u32..).map(|number| dir.with_file_name(format!("{name}.old-{number}")));
    names.find(|path| !path.exists()).unwrap_or_else(|| dir.with_extension("old"))
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // Gone already if it was put in its place.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Why there is no writing to a directory of credentials.
pub(super) fn occupied(dir: &Path) -> Failure {
    Failure::new(Exit::Failed, format!("{} is there already", dir.display()))
        .hint("It holds a node's credentials. To put others in their place, and keep these beside them: --force")
}
