// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-project/sluice/test/doors/doorstest"
)

// client is how to start the driver of a client.
type client struct {
	name string
	// command makes the command for an address, with a file of the authority and an API key if there are any.
	command func(t *testing.T, args ...string) *exec.Cmd
	// flowEnd tells that the client calls FlowEnd; the others give slots back by their records only.
	flowEnd bool
	// retryAfter tells that the client shows wait_time to its user.
	retryAfter bool
}

// exporting makes clients send their records when they are told to, so that tests know what the server has seen.
var exporting = []string{"OTEL_BSP_SCHEDULE_DELAY=60000"}

var clients = []client{
	{name: "js", retryAfter: true, command: func(t *testing.T, args ...string) *exec.Cmd {
		node := lookPath(t, "node")
		folder := doorstest.Require(t, "bin/aperture-clients/js")
		return exec.Command(node, append([]string{"js/driver.mjs", folder}, args...)...) //nolint:gosec // the test says what to run
	}},
	{name: "python", flowEnd: true, retryAfter: true, command: func(t *testing.T, args ...string) *exec.Cmd {
		python := lookPath(t, "python3")
		folder := doorstest.Require(t, "bin/aperture-clients/py")
		cmd := exec.Command(python, append([]string{"-B", "python/driver.py"}, args...)...) //nolint:gosec // the test says what to run
		cmd.Env = []string{"PYTHONPATH=" + folder}
		return cmd
	}},
	{name: "java", flowEnd: true, retryAfter: true, command: func(t *testing.T, args ...string) *exec.Cmd {
		java := lookPath(t, "java")
		folder := doorstest.Require(t, "bin/aperture-clients/java")
		path := filepath.Join(folder, "target/classes") + ":" + filepath.Join(folder, "lib/*")
		// It starts for a few calls, so its compiler need not do its best.
		options := []string{"-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-cp", path, "Driver"}
		return exec.Command(java, append(options, args...)...) //nolint:gosec // the test says what to run
	}},
}

func lookPath(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		return doorstest.RequireFile(t, "/usr/bin/"+name)
	}
	return path
}

// driver is a running client.
type driver struct {
	*doorstest.Process
	t testing.TB

	mu    sync.Mutex
	input io.Writer
	n     int
}

// object is a command or a result.
type object map[string]any

// startDriver starts a client.
func startDriver(t *testing.T, c client, args ...string) *driver {
	t.Helper()
	cmd := c.command(t, args...)
	cmd.Env = append(append(os.Environ(), cmd.Env...), exporting...)
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	return &driver{Process: doorstest.StartCommand(t, cmd), t: t, input: input}
}

// send sends a command, and returns its number.
func (d *driver) send(command object) int {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.n++
	command["n"] = d.n
	line, err := json.Marshal(command)
	if err != nil {
		d.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(d.input, "%s\n", line); err != nil {
		d.t.Fatalf("the client has ended: %v", err)
	}
	return d.n
}

// result finds the result of a command; nil: there is none yet.
func (d *driver) result(n int) object {
	for line := range strings.Lines(d.Log()) {
		var out object
		if strings.HasPrefix(line, "{") && json.Unmarshal([]byte(line), &out) == nil && out["n"] == float64(n) {
			return out
		}
	}
	return nil
}

// await waits for the result of a command.
func (d *driver) await(n int) (out object) {
	d.t.Helper()
	doorstest.Eventually(d.t, func() error {
		if out = d.result(n); out == nil {
			return fmt.Errorf("command %d has no result", n)
		}
		return nil
	})
	if text, _ := out["error"].(string); strings.HasPrefix(text, "the driver failed") {
		d.t.Fatal(text)
	}
	return out
}

// do sends a command and waits for its result.
func (d *driver) do(command object) object {
	d.t.Helper()
	return d.await(d.send(command))
}

// start starts a flow that is called id.
func (d *driver) start(id, point string, more ...any) object {
	d.t.Helper()
	return d.do(startOf(id, point, more...))
}

func startOf(id, point string, more ...any) object {
	command := object{"op": "start", "id": id, "point": point, "timeout_ms": 10_000}
	for i := 0; i+1 < len(more); i += 2 {
		command[more[i].(string)] = more[i+1]
	}
	return command
}

// flush sends the records of the flows that have ended.
func (d *driver) flush() {
	d.t.Helper()
	d.do(object{"op": "flush"})
}

// end ends a flow.
func (d *driver) end(id string, more ...any) object {
	d.t.Helper()
	command := startOf(id, "", more...)
	command["op"] = "end"
	return d.do(command)
}
