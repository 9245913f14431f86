"""The scripts that measured the stock stack, run against this project; `make measures`, docs/reliability.md."""
