//! What a JSON Schema may cost at most, found without compiling it.
//!
//! A schema of two kilobytes can mean 2^30 subschemas: each of thirty definitions refers to the
//! next one twice. So subschemas are counted through every `$ref`, each definition once, and what
//! counts too much is refused.

use std::borrow::Cow;
use std::collections::HashMap;

pub use ktrdr_protocol::json::length;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

/// Largest schema, in bytes of its JSON text.
pub const MAX_BYTES: usize = 64 * 1024;

/// Most subschemas of a schema when every `$ref` is replaced by what it refers to.
pub const MAX_NODES: u64 = 100_000;

/// Longest chain of subschemas, each inside the one before or referred to by it.
pub const MAX_DEPTH: usize = 256;

/// Longest part of such a chain that checks one and the same place of the value. A recursive schema
/// goes through such a part for each level of the value, so this bounds the stack.
pub const MAX_DEPTH_IN_PLACE: usize = 32;

/// Most regular expressions. Each may take [`super::MAX_PATTERN_BYTES`] when it is compiled.
pub const MAX_PATTERNS: usize = 64;

/// Most bytes of the paths of all keywords together. A validator keeps each of them, so long names around
/// many subschemas would take a thousand times their text.
pub const MAX_PATHS: u64 = 8 * 1024 * 1024;

/// Most bytes of memory that a compiled schema takes, by the estimate [`Cost::memory`]. Well below what all
/// of them together may take: a larger one would be compiled again and again.
pub const MAX_MEMORY: u64 = 48 * 1024 * 1024;

/// Longest piece of a schema that an error quotes, in characters.
const MAX_QUOTE: usize = 200;

/// Why a schema is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnusableSchema {
    /// A list, a string, a number, or null.
    #[error("it is {0}, and a JSON Schema is an object")]
    NotAnObject(&'static str),
    /// The text is too long.
    #[error("it has {bytes} bytes, and {MAX_BYTES} are allowed")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Something outside of the schema, or an anchor.
    #[error(
        "it refers to {0:?}; only references into the schema itself, like \"#/$defs/Name\", are followed"
    )]
    Reference(String),
    /// The place inside the schema does not exist, or holds no schema.
    #[error("it refers to {0:?}, and there is no schema at that place")]
    Dangling(String),
    /// A keyword that changes what references mean.
    #[error("it uses {0}, which is not supported below the top of a schema")]
    Keyword(&'static str),
    /// A subschema contains itself without going deeper into the value.
    #[error("a subschema refers to itself without end")]
    Endless,
    /// It expands to too much.
    #[error(
        "it has more than {MAX_NODES} subschemas when its references are followed; refer to a definition from fewer places"
    )]
    TooManyNodes,
    /// It nests too deep.
    #[error(
        "its subschemas nest deeper than {MAX_DEPTH}, or {MAX_DEPTH_IN_PLACE} for one place of the value"
    )]
    TooDeep,
    /// It has too many regular expressions.
    #[error("it has more than {MAX_PATTERNS} patterns")]
    TooManyPatterns,
    /// Its keyword paths are too long.
    #[error(
        "the paths of its keywords have more than {MAX_PATHS} bytes together; use shorter names around what is large, or definitions"
    )]
    PathsTooLong,
    /// It would take too much memory.
    #[error(
        "it would take about {bytes} bytes of memory when it is compiled, and {MAX_MEMORY} are allowed; use fewer patterns and subschemas, and shorter names"
    )]
    TooMuchMemory {
        /// The estimate.
        bytes: u64,
    },
    /// The validator refuses it.
    #[error("it cannot be compiled: {0}")]
    Compile(String),
    /// The validator needs too long for it.
    #[error("it could not be compiled in time")]
    Slow,
}

/// What checking a value against a schema may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Subschemas when every `$ref` is replaced by what it refers to; where a schema contains itself,
    /// that reference counts as one.
    pub nodes: u64,
    /// The longest chain of subschemas.
    pub depth: usize,
    /// Whether a subschema contains itself.
    pub is_recursive: bool,
    /// Bytes of memory that the compiled schema takes, about.
    pub memory: u64,
}

impl Cost {
    /// The cost of `schema`.
    ///
    /// # Errors
    /// [`UnusableSchema`] when the schema is not one or costs too much. Takes time in proportion to
    /// the length of the schema.
    pub fn of(schema: &Value) -> Result<Self, UnusableSchema> {
        let kind = match schema {
            Value::Object(_) | Value::Bool(_) => None,
            Value::Array(_) => Some("a list"),
            Value::String(_) => Some("a string"),
            Value::Number(_) => Some("a number"),
            Value::Null => Some("null"),
        };
        if let Some(kind) = kind {
            return Err(UnusableSchema::NotAnObject(kind));
        }
        let bytes = length(schema);
        if bytes > MAX_BYTES {
            return Err(UnusableSchema::TooLarge { bytes });
        }

        let mut graph = Graph::default();
        let root = graph.add(schema, 0)?;
        if graph.patterns > MAX_PATTERNS {
            return Err(UnusableSchema::TooManyPatterns);
        }
        if graph.path_bytes > MAX_PATHS {
            return Err(UnusableSchema::PathsTooLong);
        }
        let memory = graph.memory();
        if memory > MAX_MEMORY {
            return Err(UnusableSchema::TooMuchMemory { bytes: memory });
        }
        graph.link(schema)?;

        let mut in_place = Walk::new(&graph.nodes, |node| &node.in_place, MAX_DEPTH_IN_PLACE);
        for node in 0..graph.nodes.len() {
            in_place.visit(node, 1)?;
        }
        if in_place.met_itself {
            return Err(UnusableSchema::Endless);
        }
        let mut all = Walk::new(&graph.nodes, |node| &node.all, MAX_DEPTH);
        let Extent { nodes, depth } = all.visit(root, 1)?;
        if nodes > MAX_NODES {
            return Err(UnusableSchema::TooManyNodes);
        }
        Ok(Self {
            nodes,
            depth,
            is_recursive: all.met_itself,
            memory,
        })
    }
}

/// Where a keyword has its subschemas.
#[derive(Clone, Copy)]
enum Shape {
    /// The value is a schema, or a list of schemas.
    Plain,
    /// The members of the value are schemas.
    Members,
}

/// What a keyword does with its subschemas.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Checks the same place of the value.
    InPlace,
    /// Checks what is inside that place.
    Inside,
    /// Nothing: other places refer to them.
    Definition,
}

/// Every keyword with subschemas, of all drafts.
const KEYWORDS: [(&str, Shape, Use); 22] = [
    ("$defs", Shape::Members, Use::Definition),
    ("definitions", Shape::Members, Use::Definition),
    ("allOf", Shape::Plain, Use::InPlace),
    ("anyOf", Shape::Plain, Use::InPlace),
    ("oneOf", Shape::Plain, Use::InPlace),
    ("not", Shape::Plain, Use::InPlace),
    ("if", Shape::Plain, Use::InPlace),
    ("then", Shape::Plain, Use::InPlace),
    ("else", Shape::Plain, Use::InPlace),
    ("dependentSchemas", Shape::Members, Use::InPlace),
    ("dependencies", Shape::Members, Use::InPlace),
    ("properties", Shape::Members, Use::Inside),
    ("patternProperties", Shape::Members, Use::Inside),
    ("additionalProperties", Shape::Plain, Use::Inside),
    ("propertyNames", Shape::Plain, Use::Inside),
    ("items", Shape::Plain, Use::Inside),
    ("prefixItems", Shape::Plain, Use::Inside),
    ("additionalItems", Shape::Plain, Use::Inside),
    ("contains", Shape::Plain, Use::Inside),
    ("unevaluatedItems", Shape::Plain, Use::Inside),
    ("unevaluatedProperties", Shape::Plain, Use::Inside),
    ("extends", Shape::Plain, Use::InPlace),
];

/// The JSON pointer of a reference into the schema itself; `None` for any other.
pub fn pointer(reference: &str) -> Option<Cow<'_, str>> {
    let fragment = reference.strip_prefix('#')?;
    let pointer = percent_decode_str(fragment).decode_utf8().ok()?;
    (pointer.is_empty() || pointer.starts_with('/')).then_some(pointer)
}

fn is_schema(value: &Value) -> bool {
    value.is_object() || value.is_boolean()
}

/// The subschemas of an object schema, without those that it refers to. Each with the length of its
/// path from there, about.
fn subschemas(schema: &Map<String, Value>) -> impl Iterator<Item = (Use, usize, &Value)> {
    /// Bytes of the position in a list.
    const POSITION: usize = 4;

    KEYWORDS.iter().flat_map(move |(keyword, shape, usage)| {
        let found: Box<dyn Iterator<Item = (usize, &Value)>> = match (schema.get(*keyword), shape) {
            (Some(Value::Object(members)), Shape::Members) => {
                Box::new(members.iter().map(|(name, value)| (name.len() + 1, value)))
            }
            (Some(Value::Array(items)), Shape::Plain) => {
                Box::new(items.iter().map(|item| (POSITION + 1, item)))
            }
            (Some(value), Shape::Plain) => Box::new(std::iter::once((0, value))),
            _ => Box::new(std::iter::empty()),
        };
        found
            .filter(|(_, value)| is_schema(value))
            .map(|(path, value)| (*usage, keyword.len() + 1 + path, value))
    })
}

/// Bytes of memory that a value takes beside its own place, about.
fn memory_of(value: &Value) -> u64 {
    const PLACE: u64 = size_of::<Value>() as u64;
    /// What each allocation takes beside its content.
    const ALLOCATION: u64 = 16;
    /// The place of a member in its object: its name, its hash and its position.
    const MEMBER: u64 = PLACE + 48 + ALLOCATION;

    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => ALLOCATION + text.len() as u64,
        Value::Array(items) => {
            let items = items.iter().map(|item| PLACE + memory_of(item));
            ALLOCATION + items.sum::<u64>()
        }
        Value::Object(members) => {
            let members = members.iter();
            let members =
                members.map(|(name, value)| MEMBER + name.len() as u64 + memory_of(value));
            4 * ALLOCATION + members.sum::<u64>()
        }
    }
}

/// Adds the member `name: true` to every object schema in `schema`.
pub fn mark(schema: &mut Value, name: &str) {
    let Value::Object(members) = schema else {
        return;
    };
    for (keyword, shape, _) in KEYWORDS {
        match (members.get_mut(keyword), shape) {
            (Some(Value::Object(inner)), Shape::Members) => {
                for inner in inner.values_mut() {
                    mark(inner, name);
                }
            }
            (Some(Value::Array(items)), Shape::Plain) => {
                for item in items {
                    mark(item, name);
                }
            }
            (Some(value), Shape::Plain) => mark(value, name),
            _ => {}
        }
    }
    members.insert(name.to_owned(), Value::Bool(true));
}

#[derive(Default)]
struct Node {
    /// Subschemas that check the same place of the value.
    in_place: Vec<usize>,
    /// All subschemas.
    all: Vec<usize>,
}

#[derive(Default)]
struct Graph<'s> {
    nodes: Vec<Node>,
    /// Nodes by the address of their schema, which is borrowed while the graph exists.
    places: HashMap<*const Value, usize>,
    references: Vec<(usize, &'s str)>,
    patterns: usize,
    /// Bytes of the paths of all keywords.
    path_bytes: u64,
    /// Bytes of values that the compiled schema keeps.
    value_bytes: u64,
}

impl<'s> Graph<'s> {
    /// Adds a schema with everything inside of it. `path` is the length of the path that leads to it. As
    /// deep as the JSON text, which has a bound.
    fn add(&mut self, schema: &'s Value, path: usize) -> Result<usize, UnusableSchema> {
        let this = self.nodes.len();
        self.nodes.push(Node::default());
        self.places.insert(std::ptr::from_ref(schema), this);
        let Value::Object(members) = schema else {
            return Ok(this);
        };

        for keyword in ["$dynamicRef", "$recursiveRef"] {
            if members.contains_key(keyword) {
                return Err(UnusableSchema::Keyword(keyword));
            }
        }
        for keyword in ["$id", "id"] {
            // Below the top it would change what "#" means.
            if this > 0 && members.get(keyword).is_some_and(Value::is_string) {
                return Err(UnusableSchema::Keyword(keyword));
            }
        }
        if let Some(Value::String(reference)) = members.get("$ref") {
            self.references.push((this, reference));
        }
        self.patterns += usize::from(members.contains_key("pattern"));
        if let Some(Value::Object(patterns)) = members.get("patternProperties") {
            self.patterns += patterns.len();
        }

        // The path of the schema itself, and of each keyword.
        let keywords = members.keys().map(|keyword| path + 1 + keyword.len());
        self.path_bytes += (path + keywords.sum::<usize>()) as u64;
        for keyword in ["const", "enum"] {
            let kept = members.get(keyword);
            self.value_bytes += kept.map_or(0, memory_of);
        }

        for (usage, own, inner) in subschemas(members) {
            let inner = self.add(inner, path + own)?;
            let Some(node) = self.nodes.get_mut(this) else {
                continue;
            };
            if usage == Use::InPlace {
                node.in_place.push(inner);
            }
            if usage != Use::Definition {
                node.all.push(inner);
            }
        }
        Ok(this)
    }

    /// Bytes of memory that the compiled schema takes, about.
    fn memory(&self) -> u64 {
        /// Of a subschema with its keywords.
        const NODE: u64 = 1024;
        /// Of a pattern. Nobody tells how large it is, and it grows while it is used.
        const PATTERN: u64 = super::MAX_PATTERN_BYTES as u64;
        /// How often a path, and a value, is there.
        const TIMES: u64 = 2;

        let nodes = self.nodes.len() as u64 * NODE;
        let patterns = self.patterns as u64 * PATTERN;
        nodes + patterns + TIMES * (self.path_bytes + self.value_bytes)
    }

    /// Follows the references.
    fn link(&mut self, root: &Value) -> Result<(), UnusableSchema> {
        for (from, reference) in std::mem::take(&mut self.references) {
            let quoted = || reference.chars().take(MAX_QUOTE).collect::<String>();
            let pointer = pointer(reference).ok_or_else(|| UnusableSchema::Reference(quoted()))?;
            let target = root
                .pointer(&pointer)
                .and_then(|target| self.places.get(&std::ptr::from_ref(target)))
                .ok_or_else(|| UnusableSchema::Dangling(quoted()))?;
            if let Some(node) = self.nodes.get_mut(from) {
                node.in_place.push(*target);
                node.all.push(*target);
            }
        }
        Ok(())
    }
}

/// How much is below a node, itself included.
#[derive(Clone, Copy)]
struct Extent {
    nodes: u64,
    depth: usize,
}

#[derive(Clone, Copy)]
enum Visit {
    New,
    Open,
    Done(Extent),
}

/// Goes through a graph depth first, each node once.
struct Walk<'g> {
    nodes: &'g [Node],
    edges: fn(&Node) -> &[usize],
    max_depth: usize,
    visits: Vec<Visit>,
    met_itself: bool,
}

impl<'g> Walk<'g> {
    fn new(nodes: &'g [Node], edges: fn(&Node) -> &[usize], max_depth: usize) -> Self {
        Self {
            nodes,
            edges,
            max_depth,
            visits: vec![Visit::New; nodes.len()],
            met_itself: false,
        }
    }

    /// What is below `node`, which is the `depth`th of its chain.
    fn visit(&mut self, node: usize, depth: usize) -> Result<Extent, UnusableSchema> {
        let nodes = self.nodes;
        let (Some(state), Some(this)) = (self.visits.get_mut(node), nodes.get(node)) else {
            return Ok(Extent { nodes: 0, depth: 0 });
        };
        match *state {
            Visit::Done(extent) => return Ok(extent),
            Visit::Open => {
                self.met_itself = true;
                return Ok(Extent { nodes: 1, depth: 1 });
            }
            Visit::New => *state = Visit::Open,
        }
        if depth > self.max_depth {
            return Err(UnusableSchema::TooDeep);
        }

        let mut extent = Extent { nodes: 1, depth: 1 };
        for inner in (self.edges)(this) {
            let below = self.visit(*inner, depth + 1)?;
            extent.nodes = extent.nodes.saturating_add(below.nodes);
            extent.depth = extent.depth.max(below.depth + 1);
        }
        if extent.depth > self.max_depth {
            return Err(UnusableSchema::TooDeep);
        }
        if let Some(state) = self.visits.get_mut(node) {
            *state = Visit::Done(extent);
        }
        Ok(extent)
    }
}

#[cfg(test)]
mod tests;
