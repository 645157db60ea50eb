//! ferrovia-table
