//! Pages of `ListObjectVersions`, and which version of each object counts at a moment. Pure.

use crate::store::Key;
use jiff::Timestamp;
use quick_xml::Reader;
use quick_xml::events::Event;
use std::collections::BTreeMap;

/// A version of an object, or a mark that it was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) modified: Option<Timestamp>,
    pub(super) size_bytes: Option<u64>,
    pub(super) is_newest: bool,
    pub(super) is_deletion: bool,
}

/// A page of a listing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) entries: Vec<Entry>,
    /// Where the next one begins: an object's name and one of its versions.
    pub(super) next: Option<(String, String)>,
}

impl Page {
    /// `None` for what is no page. Unknown elements are passed over, so that newer servers may say more.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (mut reader, mut page) = (Reader::from_str(text), Self::default());
        let (mut path, mut entry, mut value) = (Vec::new(), Entry::default(), String::new());
        let (mut is_cut, mut escaped, mut next_name, mut next_version) = (false, false, None, None);
        let mut is_list = false;
        loop {
            match reader.read_event().ok()? {
                Event::Start(start) => {
                    let name = String::from_utf8(start.local_name().as_ref().to_vec()).ok()?;
                    if path.len() == 1 && matches!(name.as_str(), "Version" | "DeleteMarker") {
                        entry = Entry { is_deletion: name == "DeleteMarker", ..Entry::default() };
                    }
                    is_list |= path.is_empty() && name == "ListVersionsResult";
                    path.push(name);
                    value.clear();
                    // An owner within an entry within the list.
                    if path.len() > 8 {
                        return None;
                    }
                }
                Event::Text(part) => value.push_str(&part.decode().ok()?),
                Event::CData(part) => value.push_str(&part.decode().ok()?),
                Event::GeneralRef(part) => value.push(entity(&part.decode().ok()?)?),
                Event::End(_) => {
                    let name = path.pop()?;
                    let of = path.last().map(String::as_str);
                    match (path.len(), of, name.as_str()) {
                        (1, _, "Version" | "DeleteMarker") => page.entries.push(std::mem::take(&mut entry)),
                        (1, _, "IsTruncated") => is_cut = value == "true",
                        (1, _, "EncodingType") => escaped = value == "url",
                        (1, _, "NextKeyMarker") => next_name = Some(std::mem::take(&mut value)),
                        (1, _, "NextVersionIdMarker") => next_version = Some(std::mem::take(&mut value)),
                        (2, Some("Version" | "DeleteMarker"), name) => entry.set(name, &value)?,
                        _ => {}
                    }
                    value.clear();
                }
                Event::Eof => break,
                _ => {}
            }
        }
        if !is_list || !path.is_empty() {
            return None;
        }
        if escaped {
            page.entries.iter_mut().for_each(|entry| entry.name = unescaped(&entry.name));
            next_name = next_name.map(|name| unescaped(&name));
        }
        if is_cut {
            page.next = Some((next_name?, next_version.unwrap_or_default()));
        }
        Some(page)
    }
}

impl Entry {
    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "Key" => value.clone_into(&mut self.name),
            "VersionId" => value.clone_into(&mut self.version),
            "IsLatest" => self.is_newest = value == "true",
            "LastModified" => self.modified = Some(value.parse().ok()?),
            "Size" => self.size_bytes = Some(value.parse().ok()?),
            _ => {}
        }
        Some(())
    }
}

/// The character of `&name;`.
fn entity(name: &str) -> Option<char> {
    match name {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix('x') {
                Some(digits) => u32::from_str_radix(digits, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}

/// `a%2Fb` → `a/b`, `+` → a space, as `encoding-type=url` writes it.
fn unescaped(name: &str) -> String {
    // `&` and `=` come escaped, so that the whole is one name.
    url::form_urlencoded::parse(name.as_bytes()).next().map(|(name, _)| name.into_owned()).unwrap_or_default()
}

/// A version of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) id: Box<str>,
    pub(super) modified: Timestamp,
    pub(super) size_bytes: u64,
}

/// What of each object counts at a moment: the newest version or deletion that is not later.
#[derive(Debug)]
pub(super) struct AtTime {
    time: Timestamp,
    prefix: String,
    /// `None` for one that was deleted.
    newest: BTreeMap<Key, (Timestamp, bool, Option<Version>)>,
}

impl AtTime {
    /// `prefix` is empty or ends with a slash.
    pub(super) fn new(time: Timestamp, prefix: String) -> Self {
        Self { time, prefix, newest: BTreeMap::new() }
    }

    /// Looks at one more; `None` when it makes no sense. Of those of the same second the newest one of all counts, then the
    /// one that is listed first: lists begin with the newest.
    pub(super) fn add(&mut self, entry: Entry) -> Option<()> {
        let modified = entry.modified?;
        if modified > self.time {
            return Some(());
        }
        // Others may use the same bucket, and names that are none are no objects of ours.
        let Some(Ok(key)) = entry.name.strip_prefix(&self.prefix).map(Key::new) else { return Some(()) };
        if self
            .newest
            .get(&key)
            .is_some_and(|(known, is_newest, _)| (*known, *is_newest) >= (modified, entry.is_newest))
        {
            return Some(());
        }
        let version = if entry.is_deletion {
            None
        } else {
            let (id, size_bytes) = (entry.version.into_boxed_str(), entry.size_bytes?);
            Some(Version { id, modified, size_bytes })
        };
        self.newest.insert(key, (modified, entry.is_newest, version));
        Some(())
    }

    /// How many objects it knows.
    pub(super) fn len(&self) -> usize {
        self.newest.len()
    }

    /// The objects that were there.
    pub(super) fn finish(self) -> BTreeMap<Key, Version> {
        self.newest.into_iter().filter_map(|(key, (_, _, version))| Some((key, version?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    const PAGE: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListVersionsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
        <Name>b</Name><Prefix>z%2F</Prefix><KeyMarker/><MaxKeys>3</MaxKeys><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>\
        <NextKeyMarker>z%2Fa+b</NextKeyMarker><NextVersionIdMarker>v1</NextVersionIdMarker>\
        <Version><ETag>&quot;x&quot;</ETag><IsLatest>false</IsLatest><Key>z%2Fdata%2Faa</Key><LastModified>2030-01-02T03:04:05.000Z</LastModified>\
        <Owner><DisplayName>a &lt;Key&gt;</DisplayName><ID>1</ID></Owner><Size>7</Size><VersionId>v2</VersionId></Version>\
        <DeleteMarker><IsLatest>true</IsLatest><Key>z%2Fdata%2Faa</Key><LastModified>2030-01-02T03:04:06Z</LastModified><VersionId>v3</VersionId></DeleteMarker>\
        </ListVersionsResult>";

    #[test]
    fn a_page_is_read() {
        let page = Page::read(PAGE).unwrap();
        assert_eq!(page.next, Some(("z/a b".to_owned(), "v1".to_owned())));
        let version = Entry {
            name: "z/data/aa".to_owned(),
            version: "v2".to_owned(),
            modified: Some("2030-01-02T03:04:05Z".parse().unwrap()),
            size_bytes: Some(7),
            is_newest: false,
            is_deletion: false,
        };
        assert_eq!(page.entries[0], version);
        assert!(page.entries[1].is_deletion && page.entries[1].is_newest);
        assert_eq!(page.entries.len(), 2);
        let last =
            Page::read("<ListVersionsResult><IsTruncated>false</IsTruncated></ListVersionsResult>").unwrap();
        assert_eq!(last, Page::default());
    }

    #[test]
    fn what_is_no_page_is_refused() {
        let truncated = "<ListVersionsResult><IsTruncated>true</IsTruncated></ListVersionsResult>";
        let bad_size = PAGE.replace("<Size>7<", "<Size>-7<");
        let bad_time = PAGE.replace("2030-01-02T03:04:06Z", "soon");
        let deep = format!("<ListVersionsResult>{}", "<a>".repeat(9));
        for text in
            ["", "<html></html>", "<ListVersionsResult>", truncated, &bad_size, &bad_time, &deep, "{}"]
        {
            assert_eq!(Page::read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(<[a-zA-Z/]{0,8}>|&[a-z#0-9]{0,4};|[ -~é]){0,40}") {
            let _read = Page::read(&text);
            let _read = Page::read(&format!("<ListVersionsResult>{text}</ListVersionsResult>"));
        }

        /// Played against a bucket that keeps its history: what was there at a moment is what is found, wherever the list is cut
        /// and whatever came later.
        #[test]
        fn what_was_there_is_found(history in prop::collection::vec((0..4u8, prop::option::of(0..100u64)), 0..40), time in 0..45i64) {
            let mut found = AtTime::new(at(time), "z/".to_owned());
            let mut expected: BTreeMap<Key, u64> = BTreeMap::new();
            let mut entries = Vec::new();
            for (second, (object, size)) in history.iter().enumerate() {
                let second = i64::try_from(second).unwrap();
                let key = Key::new(format!("data/{object}")).unwrap();
                if second <= time {
                    match size {
                        Some(size) => expected.insert(key.clone(), *size),
                        None => expected.remove(&key),
                    };
                }
                entries.push(Entry { name: format!("z/{key}"), version: second.to_string(), modified: Some(at(second)), size_bytes: *size, is_newest: false, is_deletion: size.is_none() });
            }
            entries.sort_by(|a, b| (&a.name, b.modified).cmp(&(&b.name, a.modified)));
            entries.push(Entry { name: "other/x".to_owned(), modified: Some(at(0)), size_bytes: Some(1), ..Entry::default() });
            entries.push(Entry { name: "z/not an object".to_owned(), modified: Some(at(0)), size_bytes: Some(1), ..Entry::default() });
            for entry in entries {
                found.add(entry).unwrap();
            }
            let found: BTreeMap<Key, u64> = found.finish().into_iter().map(|(key, version)| (key, version.size_bytes)).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn in_the_same_second_the_newest_counts_and_then_the_first() {
        let entry = |version: &str, is_newest, is_deletion| Entry {
            name: "x".to_owned(),
            version: version.to_owned(),
            modified: Some(at(0)),
            size_bytes: Some(1),
            is_newest,
            is_deletion,
        };
        let found = |entries: &[Entry]| {
            let mut at_time = AtTime::new(at(0), String::new());
            for entry in entries {
                at_time.add(entry.clone()).unwrap();
            }
            at_time.finish().into_values().map(|version| version.id.into_string()).collect::<Vec<_>>()
        };
        assert_eq!(found(&[entry("b", false, false), entry("a", false, false)]), ["b"]);
        assert_eq!(found(&[entry("b", false, false), entry("m", true, true)]), [""; 0]);
        assert_eq!(found(&[entry("b", true, false), entry("m", false, true)]), ["b"]);
    }
}
