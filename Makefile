# shelfrank: every verb a developer needs. `make` alone prints this list.
.DEFAULT_GOAL := help

help: ## print this list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: help
