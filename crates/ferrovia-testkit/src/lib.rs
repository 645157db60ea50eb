//! ferrovia-testkit
