//! Reading the files that providers publish.
//!
//! The files come from outside and change without notice, so nothing about them is taken for
//! granted: an entry that cannot be read is left out and counted, and of a file that breaks off or
//! is no JSON beyond some point, what came before is kept and the damage said.

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use jiff::civil::Date;
use serde::de::{DeserializeSeed as _, MapAccess, SeqAccess};
use weir_flow::endpoint::Name;
use weir_flow::ranges::{List, Listed, Prefix, Provider, normalise};

use self::loose::{Each, Fields, Items, Object, Text, skip};

/// Larger files are not read; the largest published one has about 5 MB.
pub const MAX_FILE_BYTES: usize = 32 * 1024 * 1024;
/// More prefixes than this in one file are left out; the fullest published one has about 60,000.
pub const MAX_PREFIXES: usize = 400_000;
/// A region or service with more bytes than this is none.
pub(super) const MAX_NAME_BYTES: usize = 96;

/// What could be read of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its prefixes, each once.
    pub list: List,
    /// The day it was made, where it says so. Azure's files say it in their name only.
    pub as_of: Option<Date>,
    /// Entries that were left out because they could not be read.
    pub invalid: u64,
    /// Entries that were left out because there were more than [`MAX_PREFIXES`].
    pub surplus: u64,
    /// Why reading ended before the file did, if so.
    pub damage: Option<String>,
}

/// Reads a provider's file.
pub fn parse(provider: Provider, file: &[u8]) -> Published {
    let mut found = Found::new(provider);
    let damage = if file.len() > MAX_FILE_BYTES {
        Some(format!("it is larger than {} MiB and was not read", MAX_FILE_BYTES >> 20))
    } else {
        let mut json = serde_json::Deserializer::from_slice(file);
        let read = Object(&mut found).deserialize(&mut json).and_then(|()| json.end());
        read.err().map(|error| error.to_string())
    };
    Published {
        as_of: found.as_of,
        invalid: found.invalid,
        surplus: found.surplus,
        list: List::new(provider, found.listed),
        damage,
    }
}

/// What has been read so far.
struct Found {
    provider: Provider,
    listed: Vec<Listed>,
    names: HashSet<Name>,
    as_of: Option<Date>,
    invalid: u64,
    surplus: u64,
}

impl Found {
    fn new(provider: Provider) -> Self {
        Self {
            provider,
            listed: Vec::new(),
            names: HashSet::new(),
            as_of: None,
            invalid: 0,
            surplus: 0,
        }
    }

    fn add(&mut self, prefix: Prefix, region: &str, service: &str) {
        if self.listed.len() >= MAX_PREFIXES {
            self.surplus += 1;
            return;
        }
        let (Some(region), Some(service)) = (self.name(region), self.name(service)) else {
            self.invalid += 1;
            return;
        };
        self.listed.push(Listed { prefix, region, service });
    }

    /// The name in the spelling of every answer, each text held once.
    fn name(&mut self, text: &str) -> Option<Name> {
        let text = normalise(text);
        if text.len() > MAX_NAME_BYTES {
            return None;
        }
        if let Some(known) = self.names.get(text.as_str()) {
            return Some(Name::clone(known));
        }
        let name = Name::from(text);
        self.names.insert(Name::clone(&name));
        Some(name)
    }

    fn add_entry(&mut self, entry: &Entry) {
        let prefix = entry.prefix.as_deref().map(str::parse);
        let Some(Ok(prefix)) = prefix else {
            self.invalid += 1;
            return;
        };
        match self.provider {
            Provider::Google => self.add(prefix, "global", "googleservice"),
            _ => self.add(prefix, &entry.region, &entry.service),
        }
    }

    /// A tag without a region is in use everywhere; one without a service is named by what it is.
    fn add_tag(&mut self, tag: Tag) {
        self.invalid += tag.invalid;
        let region = if tag.region.is_empty() { "global" } else { &tag.region };
        let service = match tag.service.as_str() {
            "" if normalise(&tag.name).contains("azurecloud") => "azurecloud",
            "" => "azureservice",
            named => named,
        };
        for prefix in tag.prefixes {
            self.add(prefix, region, service);
        }
    }
}

impl<'de> Fields<'de> for Found {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match (self.provider, key) {
            (Provider::Aws, "createDate") | (Provider::Gcp | Provider::Google, "creationTime") => {
                let text = map.next_value::<Text>()?.0;
                self.as_of = text.as_deref().and_then(day);
                Ok(())
            }
            (Provider::Aws, "prefixes" | "ipv6_prefixes")
            | (Provider::Gcp | Provider::Google, "prefixes")
            | (Provider::Azure, "values") => map.next_value_seed(Each(self)),
            _ => skip(map),
        }
    }
}

impl<'de> Items<'de> for Found {
    fn item<A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<Option<()>, A::Error> {
        if self.provider == Provider::Azure {
            let mut tag = Tag::default();
            let item = list.next_element_seed(Object(&mut tag))?;
            return Ok(item.map(|()| self.add_tag(tag)));
        }
        let mut entry = Entry::default();
        let item = list.next_element_seed(Object(&mut entry))?;
        Ok(item.map(|()| self.add_entry(&entry)))
    }
}

/// One entry of Amazon's and Google's files.
#[derive(Default)]
struct Entry {
    prefix: Option<String>,
    region: String,
    service: String,
}

impl<'de> Fields<'de> for Entry {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "ip_prefix" | "ipv6_prefix" | "ipv4Prefix" | "ipv6Prefix" => {
                self.prefix = map.next_value::<Text>()?.0;
            }
            "region" | "scope" => self.region = map.next_value::<Text>()?.0.unwrap_or_default(),
            "service" => self.service = map.next_value::<Text>()?.0.unwrap_or_default(),
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// One service tag of Azure's file, with its properties.
#[derive(Default)]
struct Tag {
    name: String,
    region: String,
    service: String,
    prefixes: Vec<Prefix>,
    invalid: u64,
}

impl<'de> Fields<'de> for Tag {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "name" => self.name = map.next_value::<Text>()?.0.unwrap_or_default(),
            "region" => self.region = map.next_value::<Text>()?.0.unwrap_or_default(),
            "systemService" => self.service = map.next_value::<Text>()?.0.unwrap_or_default(),
            "properties" => map.next_value_seed(Object(self))?,
            "addressPrefixes" => map.next_value_seed(Each(self))?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

impl<'de> Items<'de> for Tag {
    fn item<A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<Option<()>, A::Error> {
        let Some(Text(text)) = list.next_element()? else { return Ok(None) };
        match text.as_deref().map(str::parse) {
            Some(Ok(prefix)) => self.prefixes.push(prefix),
            _ => self.invalid += 1,
        }
        Ok(Some(()))
    }
}

/// The day a text begins with: `2026-01-31-…`, `2026-01-31T…`.
fn day(text: &str) -> Option<Date> {
    text.get(..10)?.parse().ok()
}

/// The day in the name of Azure's file: `ServiceTags_Public_20260131.json`.
pub fn day_in_name(file_name: &str) -> Option<Date> {
    let digits = file_name.strip_prefix("ServiceTags_Public_")?.get(..8)?;
    Date::strptime("%Y%m%d", digits).ok()
}

/// Reading JSON whose shape is only hoped for: what has another shape is passed over, and only
/// broken JSON is an error.
mod loose {
    use std::fmt;

    use serde::Deserialize;
    use serde::de::{
        DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
    };

    /// Takes an object's fields as they come. A field that is not wanted is left to [`skip`].
    pub(super) trait Fields<'de> {
        fn field<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error>;
    }

    /// Takes a list's items as they come; `None` behind the last.
    pub(super) trait Items<'de> {
        fn item<A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<Option<()>, A::Error>;
    }

    /// Reads an object by its fields.
    pub(super) struct Object<'a, T>(pub(super) &'a mut T);
    /// Reads a list item by item.
    pub(super) struct Each<'a, T>(pub(super) &'a mut T);
    /// A text, or `None` for anything else.
    pub(super) struct Text(pub(super) Option<String>);

    /// Passes over a field's value.
    pub(super) fn skip<'de, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
        map.next_value::<IgnoredAny>().map(drop)
    }

    /// What every reader here does with a value of a shape it has no use for.
    macro_rules! pass_over {
        ($value:expr => $($shape:ident)*) => {
            $(pass_over!(@ $shape $value);)*
        };
        (@ scalar $value:expr) => {
            fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> { Ok($value) }
            fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> { Ok($value) }
            fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> { Ok($value) }
            fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> { Ok($value) }
            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> { Ok($value) }
        };
        (@ text $value:expr) => {
            fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> { Ok($value) }
        };
        (@ list $value:expr) => {
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok($value)
            }
        };
        (@ object $value:expr) => {
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok($value)
            }
        };
    }

    impl<'de, T: Fields<'de>> DeserializeSeed<'de> for Object<'_, T> {
        type Value = ();

        fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
            json.deserialize_any(self)
        }
    }

    impl<'de, T: Fields<'de>> Visitor<'de> for Object<'_, T> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some(key) = map.next_key::<String>()? {
                self.0.field(&key, &mut map)?;
            }
            Ok(())
        }

        pass_over!(() => scalar text list);
    }

    impl<'de, T: Items<'de>> DeserializeSeed<'de> for Each<'_, T> {
        type Value = ();

        fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
            json.deserialize_any(self)
        }
    }

    impl<'de, T: Items<'de>> Visitor<'de> for Each<'_, T> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
            while self.0.item(&mut list)?.is_some() {}
            Ok(())
        }

        pass_over!(() => scalar text object);
    }

    impl<'de> Deserialize<'de> for Text {
        fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
            json.deserialize_any(AnyText)
        }
    }

    struct AnyText;

    impl<'de> Visitor<'de> for AnyText {
        type Value = Text;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
            Ok(Text(Some(text.to_owned())))
        }

        pass_over!(Text(None) => scalar list object);
    }
}
