// SPDX-License-Identifier: Apache-2.0

package doorstest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Process is a running program. Its methods may be called concurrently.
type Process struct {
	t    testing.TB
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how; set before done is closed

	mu  sync.Mutex
	log bytes.Buffer
}

// maxLog bounds what is kept of the output of a process.
const maxLog = 4 << 20

// Start runs a program until the test ends. Its output is shown if the test fails.
func Start(t testing.TB, program string, args ...string) *Process {
	t.Helper()
	// Its end is Stop, which asks before it kills; the test's context would kill it.
	return StartCommand(t, exec.CommandContext(context.Background(), program, args...)) //nolint:gosec // the test says what to run
}

// StartCommand is Start for a command with an environment or folder of its own. The command must not be started, and
// its output not be set.
func StartCommand(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{t: t, name: filepath.Base(cmd.Path), cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p, p
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that a signal reaches what it starts, too
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", p.name, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = p.Stop() // it may be of those that end with an error
		if t.Failed() {
			t.Logf("output of %s:\n%s", p.name, p.Log())
		}
	})
	return p
}

// Write collects the output.
func (p *Process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.log.Len() < maxLog {
		p.log.Write(b)
	}
	return len(b), nil
}

// Log is what the process printed until now.
func (p *Process) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// Ended tells whether the process has ended by itself or was stopped.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Stop asks the process to end (SIGTERM) and waits until it has; one that does not within Patience is killed. The
// error is how it ended. To stop it again changes nothing.
func (p *Process) Stop() error {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
		p.signal(syscall.SIGKILL) // what it started and left behind
		return p.err
	case <-time.After(Patience):
	}
	p.Kill()
	return fmt.Errorf("%s did not end within %s of SIGTERM", p.name, Patience)
}

// Kill ends the process at once (SIGKILL) and waits until it has.
func (p *Process) Kill() {
	p.signal(syscall.SIGKILL)
	<-p.done
}

// Signal sends a signal to the process and to those that it started.
func (p *Process) Signal(s syscall.Signal) { p.signal(s) }

func (p *Process) signal(s syscall.Signal) {
	_ = syscall.Kill(-p.cmd.Process.Pid, s) // it may have ended
}

// build makes the product once for all tests of a package, unless $SLUICE_BIN names one. The folder is "" then.
var build = sync.OnceValues(func() (bin string, err error) {
	if bin = os.Getenv("SLUICE_BIN"); bin != "" {
		return bin, nil
	}
	dir, err := os.MkdirTemp("", "sluice-doors-") // shared by tests, so that none of them can own it
	if err != nil {
		return "", err
	}
	built.Store(&dir)
	bin = filepath.Join(dir, "sluice")
	out, err := exec.CommandContext(context.Background(), "go", "build", "-o", bin, "github.com/sluice-project/sluice/cmd/sluice").CombinedOutput() //nolint:gosec // the folder is ours
	if err != nil {
		return "", fmt.Errorf("build the product: %w\n%s", err, out)
	}
	return bin, nil
})

// built is the folder of the product that was built here.
var built atomic.Pointer[string]

// Main runs the tests of a package and removes the product that was built for them. A package calls it like this:
//
//	func TestMain(m *testing.M) { os.Exit(doorstest.Main(m)) }
func Main(m *testing.M) int {
	code := m.Run()
	if dir := built.Load(); dir != nil {
		_ = os.RemoveAll(*dir) // it is in the folder for temporary files, which the system empties
	}
	return code
}
