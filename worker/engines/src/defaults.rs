//! Leaves out of a written request what has its default.

/// Whether the value is the default of its type. For `skip_serializing_if`.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
