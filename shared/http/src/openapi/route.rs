//! One route with its description.

use std::borrow::Cow;

use ktrdr_protocol::rest::ErrorCode;
use schemars::SchemaGenerator;

use super::describe::{Describe, DescribeHandler, Description};
use crate::query::Known;
use crate::tokens::Access;

/// The description of a route, as far as the types of its handler do not contain it.
#[derive(Debug, Clone, Copy)]
pub struct Doc {
    /// `operationId`: unique in the interface; generated clients use it as a function name.
    pub id: &'static str,
    /// The group of the route.
    pub tag: &'static str,
    /// The purpose of the route, in a few words.
    pub summary: &'static str,
    /// A longer text; may be empty.
    pub details: &'static str,
    /// The meaning of a 200.
    pub answer: &'static str,
    /// Optional request headers.
    pub headers: &'static [Header],
    /// The codes that this route itself refuses with. [`super::document`] adds the ones that follow
    /// from the parameters, the path and the projection.
    pub errors: &'static [ErrorCode],
}

/// An optional request header.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    /// Its name.
    pub name: &'static str,
    /// The effect of the header.
    pub description: &'static str,
    /// Its values.
    pub values: HeaderValues,
}

/// The values that a request header may have.
#[derive(Debug, Clone, Copy)]
pub enum HeaderValues {
    /// Any text.
    Text,
    /// Text that matches this regular expression.
    Matching(&'static str),
    /// A whole number.
    Number,
}

/// One method of one path.
#[derive(Debug, Clone)]
pub struct Route {
    /// The method in lower case.
    pub method: &'static str,
    /// The path with its variable parts in braces; axum and OpenAPI write it the same way.
    pub path: Cow<'static, str>,
    /// The description that is written by hand.
    pub doc: Doc,
    /// What a request must bring.
    pub access: Access,
    /// Whether the route answers 503 until the projection is loaded.
    pub needs_projection: bool,
    /// Describes parameters and answers, from the types of the handler.
    pub(super) describe: fn(&mut Description<'_>),
}

impl Route {
    /// Describes the route that `handler` serves. The handler itself is not used: its argument and
    /// return types are.
    pub fn new<H: DescribeHandler<T>, T>(
        method: &'static str,
        path: impl Into<Cow<'static, str>>,
        access: Access,
        _handler: &H,
        doc: Doc,
    ) -> Self {
        Self {
            method,
            path: path.into(),
            doc,
            access,
            needs_projection: false,
            describe: <H as DescribeHandler<T>>::describe,
        }
    }

    /// The query parameters that the route takes. `None` for routes that anybody may ask, pages and
    /// probes: a request to them is not refused for a parameter that it does not need.
    pub fn known_parameters(&self) -> Option<Known> {
        if self.access == Access::Open {
            return None;
        }
        let mut generator = SchemaGenerator::default();
        let mut description = Description::new(&mut generator, "");
        (self.describe)(&mut description);
        let names = description.parameters.iter();
        let names = names.filter_map(|one| one["name"].as_str());
        Some(Known::new(names.map(str::to_owned).collect()))
    }
}

impl Doc {
    /// A description with nothing but the id, the group and the summary.
    pub const fn new(tag: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self {
            id,
            tag,
            summary,
            details: "",
            answer: "",
            headers: &[],
            errors: &[],
        }
    }
}

/// The argument types and the return type of a handler are its description.
impl<F, Fut, R, M> DescribeHandler<(M,)> for F
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = R>,
    R: Describe,
{
    fn describe(description: &mut Description<'_>) {
        R::describe(description);
    }
}

macro_rules! describe_handler {
    ($($argument:ident),+) => {
        impl<F, Fut, R, M, $($argument),+> DescribeHandler<(M, $($argument,)+)> for F
        where
            F: FnOnce($($argument),+) -> Fut,
            Fut: Future<Output = R>,
            R: Describe,
            $($argument: Describe,)+
        {
            fn describe(description: &mut Description<'_>) {
                $($argument::describe(description);)+
                R::describe(description);
            }
        }
    };
}

describe_handler!(A);
describe_handler!(A, B);
describe_handler!(A, B, C);
describe_handler!(A, B, C, D);
describe_handler!(A, B, C, D, E);
