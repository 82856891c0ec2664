// SPDX-License-Identifier: Apache-2.0

// Command sluice is load management for services, APIs and language models: the server and everything
// to operate it. Run sluice --help.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/sluice-project/sluice/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	code := cli.Main(ctx, cli.System())
	stop()
	os.Exit(code)
}
