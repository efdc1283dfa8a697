# Short names for people who are used to make. Each target calls the script that does the work.
.PHONY: serve test lint bench docs lock

serve:
	@sh scripts/serve

test:
	@sh scripts/test

lint:
	@sh scripts/test --lint

bench:
	@sh scripts/bench

docs:
	@sh scripts/docs

lock:
	@sh scripts/lock
