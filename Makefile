# For habit only: each line calls the script that does the work.
.PHONY: serve test lint bench lock

serve:
	@sh scripts/serve

test:
	@sh scripts/test

lint:
	@sh scripts/test --lint

bench:
	@sh scripts/bench

lock:
	@sh scripts/lock
