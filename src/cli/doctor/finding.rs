//! What was found: a status, what it is about, and the command that mends it.
//! Leaves finding anything to the areas.

use std::fmt;

use rmpv::Value;

use super::super::json;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    Problem,
    /// It works, and will cease to if nobody does anything.
    Warning,
    /// Somebody has wanted it so, and may have forgotten.
    Note,
    /// It does not apply here, or this user may not see it.
    Unchecked,
}

impl Status {
    fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Problem => "problem",
            Self::Warning => "warning",
            Self::Note => "note",
            Self::Unchecked => "unchecked",
        }
    }
}

/// The outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) status: Status,
    /// One word for what was looked at; scripts may look for it.
    pub(super) check: &'static str,
    pub(super) text: String,
    /// A command to type, or what to do where no command does it.
    pub(super) mend: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Self { status: Status::Ok, check, text: text.into(), mend: None }
    }

    pub(super) fn problem(
        check: &'static str,
        text: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self { status: Status::Problem, check, text: text.into(), mend: Some(mend.into()) }
    }

    pub(super) fn warning(
        check: &'static str,
        text: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self { status: Status::Warning, check, text: text.into(), mend: Some(mend.into()) }
    }

    pub(super) fn note(
        check: &'static str,
        text: impl Into<String>,
        change: impl Into<String>,
    ) -> Self {
        Self { status: Status::Note, check, text: text.into(), mend: Some(change.into()) }
    }

    pub(super) fn unchecked(check: &'static str, text: impl Into<String>) -> Self {
        Self { status: Status::Unchecked, check, text: text.into(), mend: None }
    }

    /// Something that only root, or the daemon's own user, may see.
    pub(super) fn hidden(check: &'static str, text: impl Into<String>) -> Self {
        let mend = Some("sudo cortex doctor".to_owned());
        Self { status: Status::Unchecked, check, text: text.into(), mend }
    }
}

/// The findings as text, one to a line.
#[derive(Debug)]
pub(super) struct Lines<'a>(pub(super) &'a [Finding]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { status, check, text, mend } in self.0 {
            write!(f, "{:<9}  {check:<13}  {text}", status.label())?;
            if let Some(mend) = mend {
                let purpose = match status {
                    Status::Ok | Status::Problem | Status::Warning => "mend",
                    Status::Note => "change",
                    Status::Unchecked => "check",
                };
                write!(f, ". To {purpose}: {mend}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// The findings as one MessagePack value, to be printed as JSON.
pub(super) fn packed(findings: &[Finding]) -> Vec<u8> {
    let healthy = findings.iter().all(|finding| finding.status != Status::Problem);
    let listed = findings.iter().map(|Finding { status, check, text, mend }| {
        Value::Map(vec![
            ("check".into(), (*check).into()),
            ("status".into(), status.label().into()),
            ("text".into(), text.as_str().into()),
            ("mend".into(), mend.as_deref().map_or(Value::Nil, Value::from)),
        ])
    });
    let fields =
        vec![("ok".into(), healthy.into()), ("findings".into(), Value::Array(listed.collect()))];
    json::packed(&Value::Map(fields))
}

/// The one problem among findings: what it is about, and what mends it.
#[cfg(test)]
pub(super) fn the_problem(findings: Vec<Finding>) -> (&'static str, String) {
    let mut problems = findings.into_iter().filter(|finding| finding.status == Status::Problem);
    let found = problems.next().expect("there is a problem");
    assert_eq!(problems.next(), None);
    (found.check, found.mend.expect("it can be mended"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_with_what_mends_it() {
        let findings = [
            Finding::ok("ping", "it answers"),
            Finding::problem("socket-mode", "it is shut", "chmod 0666 /s"),
            Finding::warning("mesh-cert", "it ends soon", "renew"),
            Finding::note("dbus-name", "it is off", "rm /off"),
            Finding::hidden("leftovers", "not seen"),
        ];
        assert_eq!(
            Lines(&findings).to_string(),
            "ok         ping           it answers\n\
             problem    socket-mode    it is shut. To mend: chmod 0666 /s\n\
             warning    mesh-cert      it ends soon. To mend: renew\n\
             note       dbus-name      it is off. To change: rm /off\n\
             unchecked  leftovers      not seen. To check: sudo cortex doctor\n"
        );
    }

    #[test]
    fn what_was_chosen_or_not_checked_is_no_problem_and_is_not_called_ok() {
        let findings = [
            Finding::ok("ping", "it answers"),
            Finding::hidden("data-dir", "not seen"),
            Finding::note("dbus-name", "it is off", "rm /off"),
        ];
        let packed = packed(&findings);
        let value = rmpv::decode::read_value(&mut packed.as_slice()).expect("one value");
        assert_eq!(value["ok"], true.into());
        assert_eq!(value["findings"][1]["status"], "unchecked".into());
        assert_eq!(value["findings"][2]["status"], "note".into());
        assert_eq!(value["findings"][0]["mend"], Value::Nil);
    }
}
