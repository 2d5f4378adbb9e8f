//! Where things are in a root folder, and the configuration file `config/marabet.toml`.
//!
//! The configuration is strict: an unknown key is an error, since a typo would silently mean a default.

use std::fs;
use std::path::{Path, PathBuf};

use retoma_core::error::codes;
use retoma_core::{Error, ErrorKind, Result};
use toml_edit::{DocumentMut, Item};

/// The paths in a root folder.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout below `root`; nothing is read or created.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// `data/marabet.sqlite`.
    pub fn database(&self) -> PathBuf {
        self.root.join("data/marabet.sqlite")
    }

    /// `models/`, with one `.f32` and one `.f32.sha256` file for each model.
    pub fn models(&self) -> PathBuf {
        self.root.join("models")
    }

    /// `config/marabet.toml`.
    pub fn config(&self) -> PathBuf {
        self.root.join("config/marabet.toml")
    }

    /// `logs/`, with rotated logs too.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// `logs/marabet.log`, one JSON object a line for each request.
    pub fn log(&self) -> PathBuf {
        self.root.join("logs/marabet.log")
    }
}

/// What `config/marabet.toml` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The name under which the service presents itself.
    pub name: String,
    /// The file name, within `models/`, of the model to serve.
    pub model: String,
    /// How many features a request to `/predict` carries.
    pub features: u32,
    /// The largest `limit` of `/predictions`, in rows.
    pub list_limit: u32,
}

impl Config {
    /// Reads and checks the file at `path`.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|error| {
            wrong(path, &error.to_string())
                .with_hint("restore the configuration, or make a new root with `seed`")
        })?;
        Self::parse(&text).map_err(|reason| wrong(path, &reason))
    }

    /// The text of a configuration file that reads back as `self`.
    pub fn to_toml(&self) -> String {
        let string = |text: &str| toml_edit::Value::from(text).to_string();
        format!(
            "# MaraBet, the sample service.\n\n\
             name = {}\n\
             # The model to serve, a file in ../models.\n\
             model = {}\n\
             # How many features a request carries; the model's own number must be the same.\n\
             features = {}\n\
             # The most rows that /predictions lists at once.\n\
             list_limit = {}\n",
            string(&self.name),
            string(&self.model),
            self.features,
            self.list_limit
        )
    }

    fn parse(text: &str) -> Result<Self, String> {
        let document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| error.to_string())?;
        let (mut name, mut model, mut features, mut list_limit) = (None, None, None, None);
        for (key, item) in document.iter() {
            match key {
                "name" => name = Some(text_of(key, item)?),
                "model" => model = Some(text_of(key, item)?),
                "features" => features = Some(count_of(key, item)?),
                "list_limit" => list_limit = Some(count_of(key, item)?),
                _ => return Err(format!("`{key}` is not a known key")),
            }
        }
        let missing = |key: &str| format!("`{key}` is missing");
        let model = model.ok_or_else(|| missing("model"))?;
        if model.contains(['/', '\\']) || model.starts_with('.') {
            return Err(format!("`model` must be the name of a file in `models`, not `{model}`"));
        }
        Ok(Self {
            name: name.ok_or_else(|| missing("name"))?,
            model,
            features: features.ok_or_else(|| missing("features"))?,
            list_limit: list_limit.ok_or_else(|| missing("list_limit"))?,
        })
    }
}

fn text_of(key: &str, item: &Item) -> Result<String, String> {
    match item.as_str() {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(format!("`{key}` must be a text that is not empty")),
    }
}

fn count_of(key: &str, item: &Item) -> Result<u32, String> {
    item.as_integer()
        .and_then(|number| u32::try_from(number).ok())
        .filter(|number| (1..=1_000_000).contains(number))
        .ok_or_else(|| format!("`{key}` must be a whole number from 1 to 1000000"))
}

fn wrong(path: &Path, reason: &str) -> Error {
    let reason = reason.trim_end().replace('\n', "; ");
    Error::new(ErrorKind::Invalid, codes::SAMPLE_CONFIG, format!("`{}`: {reason}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Config {
        Config { name: "mara\"bet".into(), model: "winner.f32".into(), features: 16, list_limit: 100 }
    }

    #[test]
    fn a_configuration_reads_back_as_it_was_written() {
        assert_eq!(Config::parse(&example().to_toml()).unwrap(), example());
    }

    #[test]
    fn each_wrong_configuration_names_its_key() {
        let good = example().to_toml();
        for (text, named) in [
            (good.replace("features = 16", "features = 0"), "`features`"),
            (good.replace("features = 16", "features = \"16\""), "`features`"),
            (good.replace("features = 16", "feature = 16"), "`feature`"),
            (good.replace("winner.f32", "../winner.f32"), "`model`"),
            (good.replace("list_limit = 100", ""), "`list_limit`"),
        ] {
            let reason = Config::parse(&text).unwrap_err();
            assert!(reason.contains(named), "{reason}");
        }
        assert!(Config::parse("name = ").is_err());
    }

    #[test]
    fn a_missing_file_is_named_with_its_code() {
        let error = Config::read(Path::new("/nonexistent/marabet.toml")).unwrap_err();
        assert_eq!(error.code(), codes::SAMPLE_CONFIG);
        assert!(error.to_string().contains("/nonexistent/marabet.toml"));
    }
}
