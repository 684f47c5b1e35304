//! An operation that is written as its document.

use std::borrow::Cow;

use ktrdr_protocol::rest::operation::OperationDocument;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};

use super::record::{Extent, View};

/// A [`View`] that is shown to this extent.
#[derive(Debug)]
pub struct Shown {
    /// The operation.
    pub view: View,
    /// How much of it.
    pub extent: Extent,
}

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.view.document(self.extent).serialize(serializer)
    }
}

/// It is written as an [`OperationDocument`].
impl JsonSchema for Shown {
    fn schema_name() -> Cow<'static, str> {
        OperationDocument::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        OperationDocument::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        OperationDocument::json_schema(generator)
    }
}
