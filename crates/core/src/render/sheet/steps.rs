//! What is typed, in order.

use super::texts::Texts;
use crate::manifest::{Manifest, Repository, Scheme};
use crate::render::html::Html;
use crate::render::language::fill;

/// Where the commands put the password.
const PASSWORD: &str = "~/retoma-password";

/// The numbered steps.
pub(super) fn all(html: &mut Html, manifest: &Manifest, texts: &Texts) {
    let Some(first) = manifest.repositories.first() else { return };
    html.element("h2", texts.steps_title).raw("\n<ol>\n");
    step(html, texts.step_program, &["install -m 755 retoma /usr/local/bin/retoma", "retoma --version"]);
    step(html, texts.step_password, &[&format!("(umask 077; cat > {PASSWORD})")]);
    match first.scheme {
        Scheme::S3 => step(
            html,
            texts.step_credentials,
            &["export AWS_ACCESS_KEY_ID=…", "export AWS_SECRET_ACCESS_KEY=…", "export AWS_REGION=…"],
        ),
        Scheme::Az => step(
            html,
            texts.step_credentials,
            &["export AZURE_STORAGE_ACCOUNT_NAME=…", "export AZURE_STORAGE_ACCOUNT_KEY=…"],
        ),
        Scheme::Gs => step(html, texts.step_credentials, &["export GOOGLE_APPLICATION_CREDENTIALS=…"]),
        Scheme::Sftp => step(html, texts.step_sftp, &[]),
        Scheme::File => step(html, &fill(texts.step_disk, &[("path", &address(first))]), &[]),
    }
    let recover = format!(
        "retoma recover --repository-url {} --password-file {PASSWORD} --in-place",
        quoted(&address(first))
    );
    step(html, texts.step_look, &[&format!("{recover} --dry-run")]);
    step(html, texts.step_recover, &[&recover]);
    let health = manifest.service.health.as_deref().unwrap_or("–");
    step(html, &fill(texts.step_check, &[("health", health)]), &[]);
    step(html, texts.step_after, &[&format!("rm {PASSWORD}")]);
    html.raw("</ol>\n").element("p", texts.steps_codes).raw("\n");
}

fn step(html: &mut Html, text: &str, commands: &[&str]) {
    html.raw("<li>").text(text);
    for command in commands {
        html.raw("\n<pre>").text(command).raw("</pre>");
    }
    html.raw("</li>\n");
}

/// A repository's address, as the command takes it.
pub(super) fn address(repository: &Repository) -> String {
    match repository.folder() {
        // In a manifest it is a path as it is; on the command line, an address.
        Some(folder) => {
            format!("file://{}", folder.display().to_string().replace('%', "%25").replace(' ', "%20"))
        }
        None => repository.url.clone(),
    }
}

/// What opens the way to a store, beside the password.
pub(super) fn credentials(repository: &Repository, texts: &Texts) -> &'static str {
    match repository.scheme {
        Scheme::S3 | Scheme::Az | Scheme::Gs => texts.needs_credentials,
        Scheme::Sftp => texts.needs_ssh,
        Scheme::File => texts.needs_disk,
    }
}

/// As a shell reads it as one word.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/:.@_-~%".contains(c);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn an_address_is_one_word_of_a_shell() {
        assert_eq!(quoted("s3://bucket/a-b_c"), "s3://bucket/a-b_c");
        assert_eq!(quoted("file:///a b"), "'file:///a b'");
        assert_eq!(quoted("x';rm -rf /"), r"'x'\'';rm -rf /'");
    }
}
