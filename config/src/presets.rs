//! The presets: how nodes behave, under a name.

use std::path::Path;

use crate::check;
use crate::node::Behaviour;
use crate::problem::Problems;
use crate::schema::nearest;

/// Every preset's name and text. The texts are the documentation: read `presets/default.toml`.
pub const PRESETS: &[(&str, &str)] = &[
    ("default", include_str!("../presets/default.toml")),
    ("wan", include_str!("../presets/wan.toml")),
    ("highest-id", include_str!("../presets/highest-id.toml")),
];

pub fn preset_names() -> Vec<&'static str> {
    PRESETS.iter().map(|(name, _)| *name).collect()
}

/// The behaviour that a preset of this name, or the file at this path, describes. What holds a
/// slash or ends in `.toml` is a path. Keys that are left out are as in the default preset.
pub fn preset(name_or_path: &str) -> Result<Behaviour, Problems> {
    if name_or_path.contains('/') || name_or_path.ends_with(".toml") {
        let text = read(Path::new(name_or_path))?;
        return Behaviour::parse(&text, name_or_path);
    }
    match PRESETS.iter().find(|(name, _)| *name == name_or_path) {
        Some((name, text)) => Behaviour::parse(text, name),
        None => {
            let known = preset_names();
            let mut problems =
                Problems::one(name_or_path, format!("no such preset: {}", known.join(", ")));
            problems.problems[0].hint = Some(match nearest(name_or_path, known.into_iter()) {
                Some(name) => format!("did you mean `{name}`?"),
                None => "a file of your own is named by its path: `./mine.toml`".to_owned(),
            });
            Err(problems)
        }
    }
}

impl Behaviour {
    /// Reads the text of a preset. `origin` names it in messages.
    pub fn parse(text: &str, origin: &str) -> Result<Behaviour, Problems> {
        check::behaviour(text, origin)
    }
}

/// The text of a file, or why there is none, in the same words for every kind of file.
pub(crate) fn read(path: &Path) -> Result<String, Problems> {
    let problem =
        |error| Problems::one(&path.display().to_string(), format!("cannot read: {error}"));
    std::fs::read_to_string(path).map_err(problem)
}
