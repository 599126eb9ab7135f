//! `[[services]]`: what the cluster keeps running.

use std::{collections::BTreeSet, time::Duration};

use super::{ConfigError, Section};
use crate::management::message::{Checkpoint, Probe, Spec, StopSignal};

/// Reads them all. They count when the cluster does not know a service of that name yet.
pub(super) fn read(top: &Section<'_>) -> Result<Vec<Spec>, ConfigError> {
    let (mut specs, mut names) = (Vec::new(), BTreeSet::new());
    for section in top.list("services")? {
        let spec = read_one(&section)?;
        if !names.insert(spec.name.clone()) {
            let why = format!("{} is there twice", spec.name);
            return Err(section.refuse("name", why, "every service needs a name of its own"));
        }
        specs.push((section, spec));
    }
    in_order(specs)
}

/// Each after those that it names, as they must be added.
fn in_order(mut left: Vec<(Section<'_>, Spec)>) -> Result<Vec<Spec>, ConfigError> {
    let mut specs = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let names: BTreeSet<_> = left.iter().map(|(_, spec)| spec.name.clone()).collect();
        let waits =
            |spec: &Spec| spec.needs.iter().chain(&spec.with).any(|one| names.contains(one));
        let Some(next) = left.iter().position(|(_, spec)| !waits(spec)) else {
            let names = names.into_iter().collect::<Vec<_>>().join(", ");
            let why = format!("{names} need one another in a circle");
            return Err(left[0].0.refuse("needs", why, "take one of `needs` or `with` out"));
        };
        specs.push(left.remove(next).1);
    }
    Ok(specs)
}

fn read_one(section: &Section<'_>) -> Result<Spec, ConfigError> {
    let name: String = section.need("name", "the service's name, such as \"web\"")?;
    let (command, actor) = (section.texts("command")?, section.flag("actor")?);
    let usual = Spec { command, actor, ..Spec::new(&name, &[]) };
    let ms = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    let every_ms = ms(section.duration("probe_every", PROBE_EVERY)?);
    let probe = |key| {
        let command = section.texts(key)?;
        let probe = Probe { every_ms, within_ms: every_ms, ..Probe::new(command) };
        Ok::<_, ConfigError>(Some(probe).filter(|probe| !probe.command.is_empty()))
    };
    let signal = |text: &str| match text {
        "term" => Ok(StopSignal::Term),
        "int" => Ok(StopSignal::Int),
        "quit" => Ok(StopSignal::Quit),
        "hup" => Ok(StopSignal::Hup),
        other => Err(format!("{other:?} is no signal; use term, int, quit or hup")),
    };
    let spec = Spec {
        providers: section.texts("providers")?,
        secondaries: section.number("secondaries", 0..=127, usual.secondaries)?,
        with: section.parse("with", "\"db\"", |text| Ok::<_, String>(text.to_owned()))?,
        needs: section.texts("needs")?,
        lease_ms: ms(section.duration("lease", usual.lease())?),
        ready: probe("ready")?,
        live: probe("live")?,
        checkpoint: read_checkpoint(section)?,
        stop_signal: section.parse("stop_signal", "\"term\"", signal)?.unwrap_or_default(),
        stop_within_ms: ms(section.duration("stop_within", usual.stop_within())?),
        restarts: section.number("restarts", 0..=1_000, usual.restarts)?,
        ..usual
    };
    let hint = "see the manual's page on services";
    spec.check().map_err(|why| section.refuse("command", why.to_string(), hint))?;
    Ok(spec)
}

fn read_checkpoint(section: &Section<'_>) -> Result<Option<Checkpoint>, ConfigError> {
    let (export, import) = (section.texts("export")?, section.texts("import")?);
    let every = section.duration("every", CHECKPOINT_EVERY)?;
    let every_ms = u32::try_from(every.as_millis()).unwrap_or(u32::MAX);
    let freshest = section.flag("freshest")?;
    match (export.is_empty(), import.is_empty()) {
        (true, true) if freshest => {
            let why = "there is no `export`, and so no checkpoint".to_owned();
            Err(section.refuse("freshest", why, "a checkpoint wants `export` and `import`"))
        }
        (true, true) => Ok(None),
        (false, false) => Ok(Some(Checkpoint { export, import, every_ms, freshest })),
        (has_no_export, _) => {
            let (key, other) =
                if has_no_export { ("import", "export") } else { ("export", "import") };
            Err(section.refuse(key, format!("there is no `{other}`"), "a checkpoint wants both"))
        }
    }
}

/// How often a checkpoint is taken, when nobody says.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);

/// Its keys.
pub(super) const KEYS: &[&str] = &[
    "name",
    "command",
    "providers",
    "secondaries",
    "with",
    "needs",
    "lease",
    "ready",
    "live",
    "probe_every",
    "export",
    "import",
    "every",
    "freshest",
    "stop_signal",
    "stop_within",
    "restarts",
    "actor",
];

/// How often a program is asked, when nobody says.
const PROBE_EVERY: Duration = Duration::from_secs(1);
