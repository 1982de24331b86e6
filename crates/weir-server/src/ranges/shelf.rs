//! Where lists come from before anything is asked of the network, and which one is used.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::civil::Date;
use weir_flow::ranges::{Prefix, Provider, Range, Ranges};

use super::compact::{Edition, decode, encode};
use super::published::{MAX_FILE_BYTES, day_in_name, parse};

/// The lists this binary was built with.
static EMBEDDED: &[u8] = include_bytes!("../../data/ranges.bin");

/// Where lists may be found on this machine, and what the operator adds to them.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Where downloads are kept. Without it they are gone with the process.
    pub cache: Option<PathBuf>,
    /// Where the operator may put files as providers publish them: `ip-ranges.json`, `cloud.json`,
    /// `goog.json`, `ServiceTags_Public_DATE.json`. A provider with a file here is not downloaded.
    pub dir: Option<PathBuf>,
    /// The operator's own ranges.
    pub own: Vec<(Prefix, Range)>,
}

/// Where a list came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Built into the binary.
    Embedded,
    /// Downloaded, by this process or an earlier one.
    Download,
    /// A file in the operator's directory.
    Directory,
}

impl Origin {
    /// The stable lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Download => "download",
            Self::Directory => "directory",
        }
    }
}

/// What is in use of one provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Who published it.
    pub provider: Provider,
    /// Where it came from; `None` where there is no list at all.
    pub origin: Option<Origin>,
    /// The day it was made, where that is known.
    pub as_of: Option<Date>,
    /// What is to be said about this copy; empty for the published file itself.
    pub note: String,
    /// How many prefixes it has.
    pub prefixes: usize,
    /// Entries that could not be read.
    pub invalid: u64,
    /// Downloads that failed since the process began.
    pub failures: u64,
    /// What is wrong with the files of it on this machine, if something is.
    pub trouble: Option<String>,
    /// Why the last download failed, if it did.
    pub refresh_trouble: Option<String>,
}

/// What is in use, by provider and in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// One for each provider, in the order of [`Provider::ALL`].
    pub sources: Vec<Source>,
    /// How many ranges the operator added.
    pub own: usize,
}

/// Reads the lists there are on this machine and lays them over each other. `fetched` are
/// downloads that are not in the cache.
pub fn load(settings: &Settings, fetched: &[Edition]) -> (Ranges, Standing) {
    let embedded = decode(EMBEDDED).unwrap_or_else(|error| {
        tracing::error!(%error, "the ranges inside this binary cannot be read; build it anew");
        Vec::new()
    });
    let mut lists = Vec::new();
    let mut standing = Standing { own: settings.own.len(), ..Standing::default() };
    for provider in Provider::ALL {
        let mut found = Found::new(provider);
        for edition in embedded.iter().filter(|edition| edition.list.provider == provider) {
            found.offer(edition.clone(), Origin::Embedded);
        }
        found.look_into_cache(settings.cache.as_deref());
        for edition in fetched.iter().filter(|edition| edition.list.provider == provider) {
            found.offer(edition.clone(), Origin::Download);
        }
        found.look_into_directory(settings.dir.as_deref());
        standing.sources.push(found.source());
        lists.extend(found.best.map(|(edition, _)| edition.list));
    }
    (Ranges::new(&lists, &settings.own), standing)
}

/// The best list of one provider so far.
struct Found {
    provider: Provider,
    best: Option<(Edition, Origin)>,
    invalid: u64,
    trouble: Option<String>,
}

impl Found {
    fn new(provider: Provider) -> Self {
        Self { provider, best: None, invalid: 0, trouble: None }
    }

    /// Takes this list unless a newer one was found. One without a day is older than any other.
    fn offer(&mut self, edition: Edition, origin: Origin) {
        if self.best.as_ref().is_none_or(|(best, _)| best.as_of <= edition.as_of) {
            self.best = Some((edition, origin));
        }
    }

    fn look_into_cache(&mut self, cache: Option<&Path>) {
        let Some(path) = cache.map(|cache| cached(cache, self.provider)) else { return };
        match read(&path) {
            Ok(bytes) => match decode(&bytes) {
                Ok(editions) => {
                    let ours = |edition: &Edition| edition.list.provider == self.provider;
                    if let Some(edition) = editions.into_iter().find(ours) {
                        self.offer(edition, Origin::Download);
                    }
                }
                Err(error) => self.trouble = Some(format!("{}: {error}", path.display())),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.trouble = Some(format!("{}: {error}", path.display())),
        }
    }

    /// A file the operator put there wins whatever its day. One that cannot be read at all does
    /// not; of one that is damaged the sound part is used.
    fn look_into_directory(&mut self, dir: Option<&Path>) {
        let Some(path) = dir.and_then(|dir| dropped(dir, self.provider)) else { return };
        let bytes = match read(&path) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.trouble = Some(format!("{}: {error}", path.display()));
                return;
            }
        };
        let published = parse(self.provider, &bytes);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let as_of = published.as_of.or_else(|| day_in_name(&name));
        let mut troubles = Vec::new();
        troubles
            .extend(published.damage.map(|why| format!("damaged, the sound part is used: {why}")));
        if published.invalid + published.surplus > 0 {
            let left_out = published.invalid + published.surplus;
            troubles.push(format!("{left_out} entries cannot be read and were left out"));
        }
        if published.list.entries().is_empty() {
            troubles.push("it has no prefix that can be read and was not used".to_owned());
        } else {
            let note = String::new();
            self.best = Some((Edition { list: published.list, as_of, note }, Origin::Directory));
            self.invalid = published.invalid + published.surplus;
        }
        if !troubles.is_empty() {
            self.trouble = Some(format!("{}: {}", path.display(), troubles.join("; ")));
        }
    }

    fn source(&self) -> Source {
        let best = self.best.as_ref();
        Source {
            provider: self.provider,
            origin: best.map(|(_, origin)| *origin),
            as_of: best.and_then(|(edition, _)| edition.as_of),
            note: best.map(|(edition, _)| edition.note.clone()).unwrap_or_default(),
            prefixes: best.map_or(0, |(edition, _)| edition.list.entries().len()),
            invalid: self.invalid,
            failures: 0,
            trouble: self.trouble.clone(),
            refresh_trouble: None,
        }
    }
}

/// Keeps a download for the next start.
pub(super) fn save(cache: &Path, edition: &Edition) -> io::Result<()> {
    fs::create_dir_all(cache)?;
    let path = cached(cache, edition.list.provider);
    let temporary = path.with_extension("new");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(&encode(std::slice::from_ref(edition)))?;
    file.sync_all()?;
    fs::rename(&temporary, &path)
}

/// When the provider's list in the cache was written.
pub(super) fn saved_at(cache: &Path, provider: Provider) -> Option<SystemTime> {
    fs::metadata(cached(cache, provider)).and_then(|file| file.modified()).ok()
}

fn cached(cache: &Path, provider: Provider) -> PathBuf {
    cache.join(format!("{}.ranges", provider.name()))
}

/// The provider's file in the operator's directory; the last by name where there are several.
pub(super) fn dropped(dir: &Path, provider: Provider) -> Option<PathBuf> {
    let is_one = |name: &str| match provider {
        Provider::Aws => name == "ip-ranges.json",
        Provider::Gcp => name == "cloud.json",
        Provider::Google => name == "goog.json",
        Provider::Azure => {
            name.starts_with("ServiceTags_Public")
                && Path::new(name).extension().is_some_and(|extension| extension == "json")
        }
    };
    let entries = fs::read_dir(dir).ok()?.flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| is_one(name)).max().map(|name| dir.join(name))
}

/// Reads a file, as far as any file of ranges may be long.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than is allowed, so that the reader sees that it is too large.
    let most = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The prefixes of one provider, for those who only want the list.
#[cfg(test)]
pub(super) fn edition(provider: Provider, file: &[u8]) -> Edition {
    let published = parse(provider, file);
    Edition { list: published.list, as_of: published.as_of, note: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = r#"{"createDate": "DAY", "prefixes": [
        {"ip_prefix": "203.0.113.0/24", "region": "NAME", "service": "EC2"}]}"#;

    fn aws(day: &str, name: &str) -> String {
        ONE.replace("DAY", day).replace("NAME", name)
    }

    fn region(settings: &Settings, fetched: &[Edition]) -> (Option<String>, Source) {
        let (ranges, standing) = load(settings, fetched);
        let range = ranges.lookup("203.0.113.9".parse().unwrap());
        let region = range.and_then(|range| range.region.as_deref().map(str::to_owned));
        (region, standing.sources.into_iter().next().unwrap())
    }

    #[test]
    fn the_copy_inside_the_binary_has_every_provider() {
        let (ranges, standing) = load(&Settings::default(), &[]);
        assert!(!ranges.is_empty());
        for source in standing.sources {
            assert_eq!(source.origin, Some(Origin::Embedded));
            assert!(source.prefixes > 0 && source.trouble.is_none(), "{source:?}");
        }
    }

    /// Whoever changes the samples makes the copy anew (docs/ranges.md); published files have a day.
    #[test]
    fn the_copy_inside_the_binary_is_made_of_the_samples_or_has_a_day() {
        for edition in decode(EMBEDDED).unwrap() {
            if edition.note.is_empty() {
                assert!(edition.as_of.is_some());
                continue;
            }
            let provider = edition.list.provider;
            let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/samples");
            let file = fs::read(dropped(&samples, provider).unwrap()).unwrap();
            let published = parse(provider, &file);
            assert_eq!((published.damage, published.invalid), (None, 0), "{provider:?}");
            assert_eq!(published.list, edition.list, "{provider:?}");
        }
    }

    #[test]
    fn a_dropped_file_wins_over_the_newer_of_download_and_binary() {
        let home = tempfile::tempdir().unwrap();
        let (cache, dir) = (home.path().join("cache"), home.path().join("dropped"));
        let settings =
            Settings { cache: Some(cache.clone()), dir: Some(dir.clone()), own: Vec::new() };
        assert_eq!(region(&settings, &[]).0, None);

        let fetched = edition(Provider::Aws, aws("2026-02-02-0", "fetched").as_bytes());
        save(&cache, &edition(Provider::Aws, aws("2026-02-01-0", "cached").as_bytes())).unwrap();
        assert_eq!(region(&settings, &[]).0.as_deref(), Some("cached"));
        assert_eq!(region(&settings, &[fetched]).0.as_deref(), Some("fetched"));

        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("ip-ranges.json"), aws("2020-01-01-0", "dropped")).unwrap();
        let (found, source) = region(&settings, &[]);
        assert_eq!(found.as_deref(), Some("dropped"));
        assert_eq!(source.origin, Some(Origin::Directory));
        assert_eq!((source.prefixes, source.invalid, source.trouble), (1, 0, None));
    }

    #[test]
    fn of_a_damaged_file_the_sound_part_is_used_and_the_damage_said() {
        let home = tempfile::tempdir().unwrap();
        let settings = Settings { dir: Some(home.path().to_owned()), ..Settings::default() };
        let file = home.path().join("ip-ranges.json");
        fs::write(&file, aws("2020-01-01-0", "x").replace("]}", ", {}, ")).unwrap();
        let (found, source) = region(&settings, &[]);
        assert_eq!((found.as_deref(), source.invalid), (Some("x"), 1));
        assert!(source.trouble.unwrap().contains("the sound part is used"));

        fs::write(&file, "<html>").unwrap();
        let (found, source) = region(&settings, &[]);
        assert_eq!((found, source.origin), (None, Some(Origin::Embedded)));
        assert!(source.trouble.unwrap().contains("was not used"));
    }

    #[test]
    fn a_damaged_cache_is_said_and_not_used() {
        let home = tempfile::tempdir().unwrap();
        let settings = Settings { cache: Some(home.path().to_owned()), ..Settings::default() };
        save(home.path(), &edition(Provider::Aws, aws("2026-02-01-0", "x").as_bytes())).unwrap();
        let path = cached(home.path(), Provider::Aws);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let (found, source) = region(&settings, &[]);
        assert_eq!((found, source.origin), (None, Some(Origin::Embedded)));
        assert!(source.trouble.unwrap().contains("aws.ranges: damaged"));
    }

    #[test]
    fn the_last_of_azure_s_files_is_used() {
        let home = tempfile::tempdir().unwrap();
        for name in ["ServiceTags_Public_20260105.json", "ServiceTags_Public_20260112.json", "x"] {
            fs::write(home.path().join(name), "{}").unwrap();
        }
        let path = dropped(home.path(), Provider::Azure).unwrap();
        assert_eq!(path.file_name().unwrap(), "ServiceTags_Public_20260112.json");
        assert_eq!(dropped(home.path(), Provider::Gcp), None);
    }
}
