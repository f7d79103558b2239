//! A mesh for a test: an authority, nodes' files, and whatever openssl(1) makes for them.
//! Leaves what is wrong with them to the tests.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cortex_core::model::NodeName;
use cortexd::pki::files::IfExists;
use cortexd::pki::{Authority, Credentials, Duplicate, Files, NewKey};
use cortexd::sys::clock;
use tempfile::TempDir;

pub(crate) const YEAR_S: u64 = 365 * 24 * 60 * 60;

pub(crate) fn now() -> u64 {
    clock::wall_ms() / 1000
}

pub(crate) fn name(text: &str) -> NodeName {
    NodeName::parse(text).expect("a node's name")
}

/// Directories that are removed in the end.
pub(crate) struct Lab {
    dir: TempDir,
    pub(crate) authority: Authority,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self::founded(now())
    }

    /// With an authority that was made at that time.
    pub(crate) fn founded(at: u64) -> Self {
        let dir = tempfile::tempdir().expect("make a directory");
        let authority =
            Authority::create(&dir.path().join("ca"), IfExists::Keep, at).expect("make a CA");
        Self { dir, authority }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The files of a node, with a certificate issued at that time.
    pub(crate) fn node_issued(&mut self, node: &str, at: u64) -> Files {
        let key = NewKey::generate().expect("make a key");
        let public = key.public().expect("it has a public half");
        let host = format!("{node}.lan");
        let issued = self.authority.issue(&name(node), &host, &public, Duplicate::Allow, at);
        self.files(&format!("{node}-{at}"), &issued.expect("issue").pem, &key.pem())
    }

    pub(crate) fn node(&mut self, node: &str) -> Files {
        self.node_issued(node, now())
    }

    pub(crate) fn credentials(&mut self, node: &str) -> Credentials {
        let files = self.node(node);
        Credentials::load(&files, &name(node), now()).expect("good credentials")
    }

    /// Files with this mesh's CA and revocation list as it is now.
    pub(crate) fn files(&self, dir: &str, certificate: &str, key: &str) -> Files {
        let dir = self.path(dir);
        fs::create_dir_all(&dir).expect("make a directory");
        let files = Files::in_dir(&dir);
        put(&files.ca_cert, self.authority.pem());
        put(&files.node_cert, certificate);
        put(&files.crl, &self.authority.revocation_list().expect("a revocation list"));
        put(&files.node_key, key);
        files
    }

    /// A node's files whose key and certificate openssl(1) has made for this CA.
    pub(crate) fn by_openssl(&self, node: &str, key: &[&str], extensions: &str) -> Files {
        self.by_openssl_named(node, &format!("/CN={node}"), key, extensions)
    }

    pub(crate) fn by_openssl_named(
        &self,
        dir: &str,
        subject: &str,
        key: &[&str],
        extensions: &str,
    ) -> Files {
        let files = self.files(dir, "", "");
        let (request, extension_file) = (self.path("request.pem"), self.path("extensions"));
        put(&extension_file, extensions);
        let mut make = vec!["req", "-new", "-nodes", "-subj", subject, "-newkey"];
        make.extend(key);
        let (key_text, request_text) = (text(&files.node_key), text(&request));
        make.extend(["-keyout", &key_text, "-out", &request_text]);
        openssl(&make);
        let (ca, ca_key) = (text(&self.path("ca/ca.crt")), text(&self.path("ca/ca.key")));
        openssl(&[
            "x509",
            "-req",
            "-in",
            &request_text,
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-days",
            "30",
            "-extfile",
            &text(&extension_file),
            "-out",
            &text(&files.node_cert),
        ]);
        files
    }
}

pub(crate) const EC: [&str; 3] = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

/// What a node's certificate says besides its common name.
pub(crate) fn extensions(node: &str) -> String {
    format!("subjectAltName=DNS:{node}\nextendedKeyUsage=serverAuth,clientAuth\n")
}

/// A revocation list by openssl(1), for what no command of ours makes.
pub(crate) struct ListByOpenssl<'a> {
    pub(crate) ca: &'a Path,
    pub(crate) key: &'a Path,
    /// In hexadecimal digits.
    pub(crate) revoked: &'a [String],
    /// `YYMMDDHHMMSSZ`
    pub(crate) next_update: &'a str,
}

impl ListByOpenssl<'_> {
    pub(crate) fn write(&self, dir: &Path, out: &Path) {
        let index: String = self
            .revoked
            .iter()
            .map(|serial| {
                let serial = serial.to_uppercase();
                format!("R\t400101000000Z\t250101000000Z\t{serial}\tunknown\t/CN=x\n")
            })
            .collect();
        put(&dir.join("index.txt"), &index);
        put(&dir.join("number"), "1000\n");
        let config = format!(
            "[ca]\ndefault_ca=d\n[d]\ndatabase={0}/index.txt\ncrlnumber={0}/number\ndefault_md=sha256\n",
            dir.display()
        );
        put(&dir.join("ca.conf"), &config);
        openssl(&[
            "ca",
            "-gencrl",
            "-config",
            &text(&dir.join("ca.conf")),
            "-cert",
            &text(self.ca),
            "-keyfile",
            &text(self.key),
            "-crl_lastupdate",
            "250101000000Z",
            "-crl_nextupdate",
            self.next_update,
            "-out",
            &text(out),
        ]);
    }
}

/// Writes a file that only its owner may read.
pub(crate) fn put(path: &Path, text: &str) {
    fs::write(path, text).expect("write");
    fs::set_permissions(path, PermissionsExt::from_mode(0o600)).expect("shut it");
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}

pub(crate) fn openssl(arguments: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
