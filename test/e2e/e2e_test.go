// SPDX-License-Identifier: Apache-2.0

// Package e2e tests the product as people have it: the binary, run by scripts. Each file of testdata is
// one script and opens by saying what it shows. Besides the commands of testscript there are
//
//	serve ARGS…         start a server on a free port with the data directory $WORK/data and wait until it
//	                    is ready; $SLUICE_SERVER is its address, $URL the same with http://, and $ALSO
//	                    the one of --also-listen
//	stop                end it with SIGTERM and expect exit code 0
//	kill9               end it with SIGKILL
//	log PATTERN         expect the log of the server to match
//	code N CMD ARGS…    run a command and expect this exit code
//	eventually CMD ARGS…  repeat a command until its exit code is 0
//	listen              accept POST requests until the script ends; $HOOK is the URL
//	heard PATTERN       wait until a request has come whose body matches
package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// patience bounds everything that is waited for.
const patience = 20 * time.Second

func TestScripts(t *testing.T) {
	dir := t.TempDir()
	bin := os.Getenv("SLUICE_BIN")
	if bin == "" {
		bin = filepath.Join(dir, "built", "sluice")
		if out, err := exec.Command("go", "build", "-o", bin, "../../cmd/sluice").CombinedOutput(); err != nil {
			t.Fatalf("build the product: %v\n%s", err, out)
		}
	}
	if err := os.Symlink(bin, filepath.Join(dir, "sluice")); err != nil {
		t.Fatal(err)
	}
	examples, err := filepath.Abs("../../examples")
	if err != nil {
		t.Fatal(err)
	}
	blueprints, err := filepath.Abs("../../internal/policy/blueprint")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", dir+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("EXAMPLES", examples)
			e.Setenv("BLUEPRINTS", blueprints)
			e.Setenv("NO_PROXY", "*")
			e.Values[serverKey{}] = &server{}
			e.Values[hookKey{}] = &hook{}
			return nil
		},
		Condition: func(name string) (bool, error) {
			if name == "smalldisk" {
				return canMount(), nil
			}
			return false, fmt.Errorf("no condition is called %q", name)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve": serve, "stop": stop, "kill9": kill9, "log": matchLog, "code": code, "eventually": eventually,
			"listen": listen, "heard": heard,
		},
	})
}

// canMount tells whether scripts can make a small disk.
func canMount() bool {
	return exec.Command("unshare", "--user", "--mount", "--map-root-user", "sh", "-c", "mount -t tmpfs -o size=1m none /mnt").Run() == nil
}

type serverKey struct{}

// server is the one server of a script.
type server struct {
	process *exec.Cmd
	done    chan error

	mu  sync.Mutex
	log bytes.Buffer
}

// Write collects the log.
func (s *server) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(p)
}

func (s *server) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

func serverOf(ts *testscript.TestScript) *server { return ts.Value(serverKey{}).(*server) }

var (
	readyLine   = regexp.MustCompile(`is ready: open (\S+)`)
	alsoAddress = regexp.MustCompile(`also=\[([^] ]+)`)
)

func serve(ts *testscript.TestScript, neg bool, args []string) {
	s := serverOf(ts)
	if neg || s.process != nil {
		ts.Fatalf("serve: cannot be negated, nor be used while a server runs")
	}
	line := []string{"serve", "--listen", "127.0.0.1:0", "--data-dir", ts.MkAbs("data")}
	s.process = exec.Command("sluice", append(line, args...)...) //nolint:gosec // the script says what to run
	s.process.Path = filepath.Join(strings.Split(ts.Getenv("PATH"), string(os.PathListSeparator))[0], "sluice")
	s.process.Err = nil
	s.process.Dir = ts.MkAbs(".")
	for _, name := range []string{"HOME", "PATH", "SLUICE_CONFIG", "SLUICE_LOG_LEVEL", "SLUICE_AUTH_TOKENS"} {
		if v := ts.Getenv(name); v != "" {
			s.process.Env = append(s.process.Env, name+"="+v)
		}
	}
	s.process.Stderr = s
	out, err := s.process.StdoutPipe()
	ts.Check(err)
	ts.Check(s.process.Start())
	process, done := s.process, make(chan error, 1)
	s.done = done
	url := make(chan string, 1)
	go func() {
		in := bufio.NewScanner(io.TeeReader(out, s))
		for in.Scan() {
			if m := readyLine.FindStringSubmatch(in.Text()); m != nil {
				url <- m[1]
			}
		}
		done <- process.Wait()
	}()
	ts.Defer(func() { end(s, os.Kill) })
	select {
	case u := <-url:
		awaitReady(ts, u)
		ts.Setenv("URL", u)
		ts.Setenv("SLUICE_SERVER", strings.TrimPrefix(u, "http://"))
		if m := alsoAddress.FindStringSubmatch(s.text()); m != nil {
			ts.Setenv("ALSO", m[1])
		}
	case err := <-done:
		s.process = nil
		ts.Fatalf("serve: %v\n%s", err, s.text())
	case <-time.After(patience):
		ts.Fatalf("serve: not ready after %s\n%s", patience, s.text())
	}
}

func awaitReady(ts *testscript.TestScript, url string) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range int(patience / (5 * time.Millisecond)) {
		resp, err := http.Get(url + "/readyz")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		<-tick.C
	}
	ts.Fatalf("serve: %s/readyz did not become 200", url)
}

// end ends the server and tells how it went; nil without a server.
func end(s *server, signal os.Signal) error {
	if s.process == nil {
		return nil
	}
	process := s.process
	s.process = nil
	_ = process.Process.Signal(signal) // it may have ended by itself
	select {
	case err := <-s.done:
		return err
	case <-time.After(patience):
		_ = process.Process.Kill()
		return fmt.Errorf("did not end within %s", patience)
	}
}

func stop(ts *testscript.TestScript, _ bool, _ []string) {
	s := serverOf(ts)
	if s.process == nil {
		ts.Fatalf("stop: no server runs")
	}
	if err := end(s, syscall.SIGTERM); err != nil {
		ts.Fatalf("stop: %v\n%s", err, s.text())
	}
}

func kill9(ts *testscript.TestScript, _ bool, _ []string) {
	s := serverOf(ts)
	if s.process == nil {
		ts.Fatalf("kill9: no server runs")
	}
	_ = end(s, os.Kill) // the error says that it was killed
}

func matchLog(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("log: want one pattern")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	if text := serverOf(ts).text(); pattern.MatchString(text) == neg {
		ts.Fatalf("log: match of %q is %v in\n%s", args[0], !neg, text)
	}
}

func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("code: want code N CMD ARGS…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%s: got exit code %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

func eventually(ts *testscript.TestScript, neg bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := ts.Exec(args[0], args[1:]...); (err == nil) != neg {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			ts.Fatalf("%s: not within %s", strings.Join(args, " "), patience)
		}
	}
}

type hookKey struct{}

// hook keeps what is sent to it.
type hook struct {
	mu     sync.Mutex
	bodies []string
}

// ServeHTTP implements http.Handler.
func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bodies = append(h.bodies, string(body))
}

func (h *hook) heard() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.bodies
}

func listen(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("listen: takes nothing and cannot be negated")
	}
	s := httptest.NewServer(ts.Value(hookKey{}).(*hook))
	ts.Defer(s.Close)
	ts.Setenv("HOOK", s.URL)
}

func heard(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("heard: want one pattern, and cannot be negated")
	}
	pattern, err := regexp.Compile(args[0])
	ts.Check(err)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range int(patience / (20 * time.Millisecond)) {
		for _, body := range ts.Value(hookKey{}).(*hook).heard() {
			if pattern.MatchString(body) {
				return
			}
		}
		<-tick.C
	}
	ts.Fatalf("heard: nothing with %q in %q", args[0], ts.Value(hookKey{}).(*hook).heard())
}
