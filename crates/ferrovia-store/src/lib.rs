//! ferrovia-store
