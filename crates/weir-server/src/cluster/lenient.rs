//! Reading JSON that somebody else made: what is not what it should be is absent, never an error,
//! so that one odd object does not hide all others. Texts and lists are bounded.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Bytes of a text: more than any name, label or time of the API has.
const TEXT_BYTES: usize = 1_024;
/// Items of a list.
const ITEMS: usize = 1_024;

/// A value where it is what it should be.
#[derive(Clone, Debug)]
pub(super) struct Any<T>(Option<T>);

impl<T> Any<T> {
    pub(super) fn get(&self) -> Option<&T> {
        self.0.as_ref()
    }
}

impl<T> Default for Any<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl Any<Box<str>> {
    /// The text; `None` where it is absent or empty.
    pub(super) fn text(&self) -> Option<&str> {
        self.0.as_deref().filter(|text| !text.is_empty())
    }
}

impl<T> Any<Vec<T>> {
    pub(super) fn items(&self) -> &[T] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl<T> Any<Fields<T>> {
    pub(super) fn fields(&self) -> Option<&T> {
        self.0.as_ref().map(|fields| &fields.0)
    }

    pub(super) fn into_inner(self) -> Option<T> {
        self.0.map(|fields| fields.0)
    }
}

/// What a value may be made of. Whatever is not wanted is `None`.
pub(super) trait Lenient: Sized {
    fn text(_: &str) -> Option<Self> {
        None
    }
    fn number(_: u64) -> Option<Self> {
        None
    }
    fn boolean(_: bool) -> Option<Self> {
        None
    }
    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Option<Self>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }
    fn map<'de, A: MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

impl Lenient for Box<str> {
    fn text(text: &str) -> Option<Self> {
        (text.len() <= TEXT_BYTES).then(|| text.into())
    }
}

impl Lenient for bool {
    fn boolean(value: bool) -> Option<Self> {
        Some(value)
    }
}

impl Lenient for u64 {
    fn number(number: u64) -> Option<Self> {
        Some(number)
    }
}

/// A number, or the name of one.
#[derive(Clone, Debug)]
pub(super) enum NumberOrName {
    Number(u64),
    Name(Box<str>),
}

impl Lenient for NumberOrName {
    fn text(text: &str) -> Option<Self> {
        Box::<str>::text(text).map(Self::Name)
    }
    fn number(number: u64) -> Option<Self> {
        Some(Self::Number(number))
    }
}

/// Items that are what they should be.
impl<T: Lenient> Lenient for Vec<T> {
    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Option<Self>, A::Error> {
        let mut items = Self::new();
        while let Some(item) = list.next_element::<Any<T>>()? {
            items.extend(item.0.filter(|_| items.len() < ITEMS));
        }
        Ok(Some(items))
    }
}

/// Texts by name.
#[derive(Clone, Debug)]
pub(super) struct Texts(Vec<(Box<str>, Box<str>)>);

impl Texts {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| **key == *name).map(|(_, value)| &**value)
    }
}

impl Lenient for Texts {
    fn map<'de, A: MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
        let mut texts = Vec::new();
        while let Some((key, value)) = map.next_entry::<Any<Box<str>>, Any<Box<str>>>()? {
            let pair = key.0.zip(value.0);
            texts.extend(pair.filter(|_| texts.len() < ITEMS));
        }
        Ok(Some(Self(texts)))
    }
}

/// A struct all of whose fields are [`Any`] and have defaults.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields<T>(pub(super) T);

impl<T> Lenient for Fields<T>
where
    T: for<'de> Deserialize<'de>,
{
    fn map<'de, A: MapAccess<'de>>(map: A) -> Result<Option<Self>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(|fields| Some(Self(fields)))
    }
}

impl<'de, T: Lenient> Deserialize<'de> for Any<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyVisitor(PhantomData)).map(Self)
    }
}

struct AnyVisitor<T>(PhantomData<T>);

impl<'de, T: Lenient> Visitor<'de> for AnyVisitor<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Option<T>, E> {
        Ok(T::text(text))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Option<T>, E> {
        Ok(T::number(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Option<T>, E> {
        Ok(u64::try_from(number).ok().and_then(T::number))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Option<T>, E> {
        Ok(T::boolean(value))
    }

    fn visit_unit<E: Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Option<T>, A::Error> {
        T::list(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Option<T>, A::Error> {
        T::map(map)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Object {
        name: Any<Box<str>>,
        port: Any<u64>,
        target: Any<NumberOrName>,
        labels: Any<Texts>,
        items: Any<Vec<Fields<Item>>>,
    }

    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Item {
        name: Any<Box<str>>,
    }

    fn object(json: &str) -> Object {
        serde_json::from_str::<Any<Fields<Object>>>(json).unwrap().0.unwrap_or_default().0
    }

    #[test]
    fn what_is_right_is_read() {
        let read = object(
            r#"{"name":"a","port":80,"target":"http","labels":{"k":"v"},"items":[{"name":"x"}]}"#,
        );
        assert_eq!((read.name.text(), read.port.get()), (Some("a"), Some(&80)));
        assert!(matches!(read.target.get(), Some(NumberOrName::Name(name)) if &**name == "http"));
        assert_eq!(read.labels.get().unwrap().get("k"), Some("v"));
        assert_eq!(read.items.items()[0].0.name.text(), Some("x"));
    }

    #[test]
    fn whatever_is_wrong_is_absent_and_spoils_nothing_else() {
        for wrong in ["null", "1.5", "-1", "true", "[]", "{}", "[[1],{\"a\":null}]", "\"\"", "1e9"]
        {
            let read = object(&format!(
                r#"{{"other":{wrong},"labels":{wrong},"items":{wrong},"name":"a","port":80}}"#
            ));
            assert_eq!((read.name.text(), read.port.get()), (Some("a"), Some(&80)), "{wrong}");
            assert!(read.items.items().iter().all(|item| item.0.name.text().is_none()), "{wrong}");
            let read = object(&format!(r#"{{"name":{wrong},"items":[{wrong},{{"name":"x"}}]}}"#));
            assert_eq!(read.name.text(), None, "{wrong}");
            let last = read.items.items().last().unwrap();
            assert_eq!(last.0.name.text(), Some("x"), "{wrong}");
            assert!(object(wrong).name.text().is_none());
        }
    }

    #[test]
    fn texts_and_lists_are_bounded() {
        let long = "x".repeat(TEXT_BYTES + 1);
        assert_eq!(object(&format!(r#"{{"name":"{long}"}}"#)).name.text(), None);
        let items = vec!["{}"; ITEMS + 9].join(",");
        assert_eq!(object(&format!(r#"{{"items":[{items}]}}"#)).items.items().len(), ITEMS);
    }
}
