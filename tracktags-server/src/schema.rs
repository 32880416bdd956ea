//! Words for the shapes of JSON, as OpenAPI 3.1 writes them (JSON Schema 2020-12).

use serde_json::Value;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use tracktags_core::metrics::UNITS_MAX;
use utoipa::openapi::schema::{
    AdditionalProperties, AllOfBuilder, AnyOfBuilder, ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat,
    SchemaType, Type,
};
use utoipa::openapi::{Ref, RefOr, Schema};

/// Text without control characters, in the dialect that ECMA-262 and others share.
const PRINTABLE: &str = r"^[^\x00-\x1f\x7f-\x9f]*$";
/// The grammar of `customer_id` and `metric_name`.
const NAME: &str = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$";

/// How a value looks.
#[derive(Clone)]
pub(crate) struct Kind(RefOr<Schema>);

impl From<Kind> for RefOr<Schema> {
    fn from(kind: Kind) -> Self {
        kind.0
    }
}

fn of(builder: ObjectBuilder) -> Kind {
    Kind(RefOr::T(Schema::Object(builder.build())))
}

fn typed(kind: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(kind)
}

impl Kind {
    /// Any text.
    pub(crate) fn text() -> Self {
        of(typed(Type::String))
    }

    /// Text of so many characters, none of them a control character.
    pub(crate) fn printable(chars: &RangeInclusive<usize>) -> Self {
        let (min, max) = (*chars.start(), *chars.end());
        let bounded = |bound: usize| (bound > 0 && bound < usize::MAX).then_some(bound);
        let text = typed(Type::String).pattern(Some(PRINTABLE));
        of(text.min_length(bounded(min)).max_length(bounded(max)))
    }

    /// The id of a customer or the name of a metric.
    pub(crate) fn name() -> Self {
        of(typed(Type::String).pattern(Some(NAME)))
    }

    /// A time as RFC 3339 writes it.
    pub(crate) fn time() -> Self {
        Self::format(SchemaFormat::KnownFormat(KnownFormat::DateTime))
    }

    /// Text of a format that JSON Schema does not know.
    pub(crate) fn custom(format: &str) -> Self {
        Self::format(SchemaFormat::Custom(format.to_owned()))
    }

    fn format(format: SchemaFormat) -> Self {
        of(typed(Type::String).format(Some(format)))
    }

    /// Units of a metric: 0 to 2^53 − 1.
    pub(crate) fn units() -> Self {
        Self::within(0..=UNITS_MAX)
    }

    /// A whole number of a range.
    pub(crate) fn within(range: RangeInclusive<i64>) -> Self {
        of(typed(Type::Integer).minimum(Some(*range.start())).maximum(Some(*range.end())))
    }

    /// Any whole number.
    pub(crate) fn whole() -> Self {
        of(typed(Type::Integer))
    }

    /// `true` or `false`.
    pub(crate) fn flag() -> Self {
        of(typed(Type::Boolean))
    }

    /// One of these words.
    pub(crate) fn words<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        of(typed(Type::String).enum_values(Some(words)))
    }

    /// A list.
    pub(crate) fn list(items: Self) -> Self {
        Self(RefOr::T(Schema::Array(ArrayBuilder::new().items(items.0).build())))
    }

    /// A list of distinct items, so many of them.
    pub(crate) fn distinct(items: Self, counts: RangeInclusive<usize>) -> Self {
        let list = ArrayBuilder::new().items(items.0).unique_items(true);
        let list = list.min_items(Some(*counts.start())).max_items(Some(*counts.end()));
        Self(RefOr::T(Schema::Array(list.build())))
    }

    /// An object of whatever fields.
    pub(crate) fn object() -> Self {
        of(typed(Type::Object))
    }

    /// An object whose values are all of one kind.
    pub(crate) fn map(values: Self) -> Self {
        of(typed(Type::Object).additional_properties(Some(AdditionalProperties::RefOr(values.0))))
    }

    /// Whatever JSON can say.
    pub(crate) fn any() -> Self {
        of(ObjectBuilder::new().schema_type(SchemaType::AnyValue))
    }

    /// The shared object of this name.
    pub(crate) fn shared(name: &str) -> Self {
        Self(RefOr::Ref(Ref::from_schema_name(name)))
    }

    /// One of several kinds.
    pub(crate) fn any_of(kinds: impl IntoIterator<Item = Self>) -> Self {
        let all = kinds.into_iter().fold(AnyOfBuilder::new(), |all, kind| all.item(kind.0));
        Self(RefOr::T(Schema::AnyOf(all.build())))
    }

    /// All of several kinds at once.
    pub(crate) fn all_of(kinds: impl IntoIterator<Item = Self>) -> Self {
        let all = kinds.into_iter().fold(AllOfBuilder::new(), |all, kind| all.item(kind.0));
        Self(RefOr::T(Schema::AllOf(all.build())))
    }

    /// The same, or `null`.
    pub(crate) fn or_null(mut self) -> Self {
        match &mut self.0 {
            RefOr::T(Schema::Object(object)) => {
                object.schema_type = with_null(&object.schema_type);
                if let Some(values) = &mut object.enum_values {
                    values.push(Value::Null);
                }
                self
            }
            RefOr::T(Schema::Array(array)) => {
                array.schema_type = with_null(&array.schema_type);
                self
            }
            RefOr::T(_) | RefOr::Ref(_) => Self::any_of([self, of(typed(Type::Null))]),
        }
    }

    /// The same, with what it means.
    fn about(mut self, meaning: &str) -> Self {
        let meaning = Some(meaning.to_owned());
        match &mut self.0 {
            RefOr::T(Schema::Object(object)) => object.description = meaning,
            RefOr::T(Schema::Array(array)) => array.description = meaning,
            RefOr::T(Schema::AnyOf(any)) => any.description = meaning,
            RefOr::T(_) | RefOr::Ref(_) => {}
        }
        self
    }
}

fn with_null(kind: &SchemaType) -> SchemaType {
    match kind {
        SchemaType::Type(kind) => SchemaType::Array(vec![kind.clone(), Type::Null]),
        SchemaType::Array(kinds) => {
            SchemaType::Array(kinds.iter().cloned().chain([Type::Null]).collect::<Vec<_>>())
        }
        SchemaType::AnyValue => SchemaType::AnyValue,
    }
}

/// The fields of an object: of a body as its reader takes them, or of an answer.
#[derive(Clone, Default)]
pub(crate) struct Fields {
    fields: Vec<(String, Kind)>,
    required: BTreeSet<String>,
    is_choice: bool,
}

impl Fields {
    /// A field that is always there.
    pub(crate) fn with(mut self, name: &str, kind: Kind) -> Self {
        self.required.insert(name.to_owned());
        self.maybe(name, kind)
    }

    /// A field that may be left out.
    pub(crate) fn maybe(mut self, name: &str, kind: Kind) -> Self {
        self.note(name, || kind);
        self
    }

    /// The same and those of `other`.
    pub(crate) fn and(mut self, other: Self) -> Self {
        for (name, kind) in other.fields {
            self.note(&name, || kind);
        }
        self.required.extend(other.required);
        self
    }

    /// The same, none of which must be there.
    pub(crate) fn all_maybe(mut self) -> Self {
        self.required.clear();
        self
    }

    /// Notes a field, unless it is known.
    pub(crate) fn note(&mut self, name: &str, kind: impl FnOnce() -> Kind) {
        if self.fields.iter().all(|(known, _)| known != name) {
            self.fields.push((name.to_owned(), kind()));
        }
    }

    /// Notes that a field must be there.
    pub(crate) fn require(&mut self, name: &str) {
        self.required.insert(name.to_owned());
    }

    /// Says what a field means.
    pub(crate) fn about(mut self, name: &str, meaning: &str) -> Self {
        let field = self.fields.iter_mut().find(|(known, _)| known == name);
        debug_assert!(field.is_some(), "no field {name} to say something about");
        if let Some((_, kind)) = field {
            *kind = kind.clone().about(meaning);
        }
        self
    }

    /// The same, of which exactly one must be there.
    pub(crate) fn one_of_them(mut self) -> Self {
        self.is_choice = true;
        self
    }

    /// Whether something must be there.
    pub(crate) fn has_required(&self) -> bool {
        self.is_choice || !self.required.is_empty()
    }

    fn builder(self) -> ObjectBuilder {
        let object =
            self.fields.into_iter().fold(ObjectBuilder::new(), |all, (name, kind)| all.property(name, kind));
        let count = self.is_choice.then_some(1);
        let object = object.min_properties(count).max_properties(count);
        self.required.into_iter().fold(object, ObjectBuilder::required)
    }

    /// An object with these fields; later versions may add some.
    pub(crate) fn object(self) -> Kind {
        of(self.builder())
    }

    /// An object with these fields and others that are text.
    pub(crate) fn strings(self) -> Kind {
        of(self.builder().additional_properties(Some(AdditionalProperties::RefOr(Kind::text().0))))
    }

    /// An object with these fields and no others.
    pub(crate) fn closed(self) -> Kind {
        of(self.builder().additional_properties(Some(AdditionalProperties::FreeForm(false))))
    }
}
