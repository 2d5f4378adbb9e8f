//! The printed page of one share: what it is, the share as text and as QR code, how it is kept and how it is used.
//!
//! The page is the share: whoever may not hold the share may not see the page.

mod texts;

use super::Language;
use super::html::Html;
use super::language::fill;
use super::qr;
use super::sheet;
use super::text::clean;
use crate::manifest::{Manifest, Repository};
use crate::share::Share;
use zeroize::Zeroizing;

/// The page, from `<!doctype html>` to `</html>`. `repository` is the one that the share opens.
pub fn page(
    manifest: &Manifest,
    repository: &Repository,
    share: &Share,
    version: &str,
    language: Language,
) -> String {
    let texts = texts::of(language);
    let (index, total, threshold) =
        (share.index().to_string(), share.total().to_string(), share.threshold().to_string());
    let set = share.set().to_string();
    let names = [
        ("service", manifest.service.name.as_str()),
        ("repository", repository.name.as_str()),
        ("index", &index),
        ("total", &total),
        ("threshold", &threshold),
        ("set", &set),
        ("version", version),
    ];
    let title = fill(texts.title, &names);
    let mut html = Html::default();
    html.raw("<!doctype html>\n<html lang=\"")
        .raw(language.tag())
        .raw("\">\n<head>\n<meta charset=\"utf-8\">\n");
    html.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    html.raw("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n");
    html.element("title", &title).raw("\n<style>\n").raw(include_str!("../sheet/style.css"));
    html.raw(include_str!("style.css")).raw("</style>\n</head>\n<body>\n<main>\n");
    html.element("h1", &title).raw("\n");
    let alone = if share.threshold() == 1 { texts.intro_alone } else { texts.intro };
    html.element("p", &fill(alone, &names)).raw("\n");
    html.element("h2", texts.share_title).raw("\n<div class=\"share\">\n<pre>");
    for line in share.lines() {
        html.text(&line).raw("\n");
    }
    html.raw("</pre>\n");
    qr::svg(&mut html, &share.code());
    html.raw("</div>\n").element("p", &fill(texts.share_note, &names)).raw("\n");
    list(&mut html, texts.keep_title, &texts.keep.map(|text| fill(text, &names)));
    steps(&mut html, repository, share, texts);
    html.element("h2", texts.people_title).raw("\n");
    for label in texts.people {
        html.raw("<p class=\"blank\"><span>").text(label).raw("</span><i></i></p>\n");
    }
    html.raw("<footer>").element("p", &fill(texts.footer, &names));
    html.raw("</footer>\n</main>\n</body>\n</html>\n");
    html.finish()
}

fn list(html: &mut Html, title: &str, items: &[String]) {
    html.element("h2", title).raw("\n<ul>\n");
    for item in items {
        html.element("li", item).raw("\n");
    }
    html.raw("</ul>\n");
}

/// How `threshold` people bring the service back.
fn steps(html: &mut Html, repository: &Repository, share: &Share, texts: &texts::Texts) {
    let shares: Vec<String> =
        (1..=share.threshold().min(3)).map(|number| format!("--share ~/share-{number}")).collect();
    let more = if share.threshold() > 3 { " …" } else { "" };
    let address = sheet::quoted_address(repository);
    let recover = format!("retoma recover --repository-url {address} {}{more} --in-place", shares.join(" "));
    html.element("h2", texts.use_title).raw("\n<ol>\n");
    let threshold = share.threshold().to_string();
    let steps = [
        (fill(texts.use_meet, &[("threshold", &threshold)]), None),
        (texts.use_type.to_owned(), Some("(umask 077; cat > ~/share-1)".to_owned())),
        (texts.use_look.to_owned(), Some(format!("{recover} --dry-run"))),
        (texts.use_recover.to_owned(), Some(recover)),
        (texts.use_after.to_owned(), Some("rm ~/share-*".to_owned())),
    ];
    for (text, command) in steps {
        html.raw("<li>").text(&text);
        if let Some(command) = command {
            html.raw("\n<pre>").text(&command).raw("</pre>");
        }
        html.raw("</li>\n");
    }
    html.raw("</ol>\n").element("p", texts.use_errors).raw("\n");
}

/// The file of one share: what it is, and the lines.
pub fn file(manifest: &Manifest, repository: &Repository, share: &Share) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(1024));
    text.push_str(&format!(
        "# Retoma: share {} of {} of the key of {}, repository {}, set {}.\n",
        share.index(),
        share.total(),
        clean(&manifest.service.name),
        clean(&repository.name),
        share.set()
    ));
    text.push_str(&format!(
        "# Any {} of these shares open its backups. Keep this one where no other is, and show it to nobody.\n",
        share.threshold()
    ));
    for line in share.lines() {
        text.push_str(&line);
        text.push('\n');
    }
    text
}
