//! Parts of manifests.

/// The components of the sample service that are folders in which little is written.
pub const FOLDERS: &str = r#"
[[component]]
name = "models"
kind = "files"
tier = "high"
path = "models"

[[component]]
name = "config"
kind = "files"
tier = "medium"
path = "config"
"#;
