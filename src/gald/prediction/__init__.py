"""Uses of a trained network: predict images and videos, submit to test servers, serve a page."""
