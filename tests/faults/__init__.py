"""The promises when network, store, receiver or machine fail; README.md lists them."""
