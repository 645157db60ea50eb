//! ferrovia-api
