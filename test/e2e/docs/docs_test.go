// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

const root = "../../.."

// pages are those whose commands must work as they stand, besides the guides.
var pages = []string{"README.md", "docs/quick-start.md", "docs/operations.md", "docs/migrate-from-aperture.md"}

// sluiceBinary is the product: $SLUICE_BIN, or built here.
func sluiceBinary(t *testing.T) string {
	t.Helper()
	if bin := os.Getenv("SLUICE_BIN"); bin != "" {
		return bin
	}
	bin := filepath.Join(t.TempDir(), "sluice")
	if out, err := exec.Command("go", "build", "-o", bin, root+"/cmd/sluice").CombinedOutput(); err != nil {
		t.Fatalf("build the product: %v\n%s", err, out)
	}
	return bin
}

// TestPages runs the pages, each in a directory of its own.
func TestPages(t *testing.T) {
	bin := sluiceBinary(t)
	guides, err := filepath.Glob(filepath.Join(root, "docs/guides/*.md"))
	if err != nil || len(guides) == 0 {
		t.Fatalf("found no guides: %v", err)
	}
	for _, page := range append(pages, guides...) {
		path := page
		if !strings.HasPrefix(page, root) {
			path = filepath.Join(root, page)
		}
		t.Run(filepath.Base(page), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			steps, err := parse(string(text))
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			r := newReader(t, path, bin)
			for _, s := range steps {
				r.do(s)
			}
		})
	}
}

// reader does what a page says.
type reader struct {
	t       *testing.T
	page    string
	dir     string
	repo    string
	address string // of the server
	gateway string // of the example that listens itself
	env     []string
	running []*terminal
}

// terminal is where something runs until it is interrupted.
type terminal struct {
	cmd  *exec.Cmd
	done chan struct{}
	out  *os.File
}

func newReader(t *testing.T, page, bin string) *reader {
	t.Helper()
	repo, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{t: t, page: page, dir: t.TempDir(), repo: repo, address: freeAddress(t), gateway: freeAddress(t)}
	tools := filepath.Join(r.dir, "bin")
	for _, link := range [][2]string{{bin, "bin/sluice"}, {filepath.Join(repo, "examples"), "examples"}} {
		if err := os.MkdirAll(tools, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(link[0], filepath.Join(r.dir, link[1])); err != nil {
			t.Fatal(err)
		}
	}
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "SLUICE_") {
			r.env = append(r.env, entry)
		}
	}
	r.env = append(r.env, "PATH="+tools+":"+os.Getenv("PATH"), "SLUICE_LISTEN="+r.address, "SLUICE_SERVER="+r.address,
		"SLUICE_DATA_DIR="+filepath.Join(r.dir, "default-data"), "USER=you", "NO_COLOR=1")
	t.Cleanup(func() {
		for range r.running {
			r.stop()
		}
	})
	return r
}

// freeAddress is free now; nothing else on a test machine is likely to take it meanwhile.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func (r *reader) do(s step) {
	r.t.Helper()
	switch s.verb {
	case "file":
		if err := os.WriteFile(filepath.Join(r.dir, s.args), []byte(s.body), 0o600); err != nil {
			r.t.Fatal(err)
		}
	case "run":
		r.run(s)
	case "start":
		if s.args == "" {
			r.start(r.dir, "bash", "-c", r.here(s.body))
			return
		}
		r.start(r.repo, "bash", "-c", r.here(s.body))
		r.awaitPort(r.here(s.args))
	case "serve":
		r.start(r.dir, "sluice", append([]string{"serve"}, strings.Fields(s.args)...)...)
	case "stop":
		r.stop()
	}
}

// Addresses as pages have them.
const (
	pageServer  = "127.0.0.1:8080"
	pageGateway = "127.0.0.1:9090"
)

// here turns the addresses of pages into those of this test.
func (r *reader) here(text string) string {
	return strings.NewReplacer(pageServer, r.address, pageGateway, r.gateway).Replace(text)
}

// there undoes here.
func (r *reader) there(text string) string {
	return strings.NewReplacer(r.address, pageServer, r.gateway, pageGateway).Replace(text)
}

// awaitPort waits until somebody listens; what was started may be compiled first.
func (r *reader) awaitPort(address string) {
	r.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if conn, err := net.Dial("tcp", address); err == nil {
			_ = conn.Close()
			return
		}
	}
	r.t.Fatalf("%s: nobody listens on %s after %s:\n%s", r.page, address, patience, r.running[len(r.running)-1].printed())
}

// patience bounds one block.
const patience = 2 * time.Minute

func (r *reader) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	if name == "sluice" {
		cmd.Path, cmd.Err = filepath.Join(r.dir, "bin/sluice"), nil
	}
	cmd.Dir, cmd.Env = r.dir, r.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that a stop reaches what a shell started
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	return cmd
}

func (r *reader) run(s step) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	cmd := r.command(ctx, "bash", "-o", "pipefail", "-c", r.here(s.body))
	exit := 0
	for word := range strings.FieldsSeq(s.args) {
		if word == "repository" {
			cmd.Dir = r.repo
		} else if _, err := fmt.Sscanf(word, "exit=%d", &exit); err != nil {
			r.t.Fatalf("%s:%d: got %q after run, want exit=N or repository", r.page, s.line, word)
		}
	}
	out, err := cmd.CombinedOutput()
	got := r.there(string(out))
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) || cmd.ProcessState.ExitCode() != exit {
		r.t.Fatalf("%s:%d: got %v, want exit code %d:\n%s\nit printed:\n%s", r.page, s.line, cmd.ProcessState, exit, s.body, got)
	}
	if s.checked && !matches(s.want, got) {
		r.t.Errorf("%s:%d: this block:\n%s\nprinted:\n%s\nwant:\n%s", r.page, s.line, s.body, got, s.want)
	}
}

// start runs something until it is stopped. It waits for a server to be ready, if it starts one.
func (r *reader) start(dir, name string, args ...string) {
	r.t.Helper()
	out, err := os.CreateTemp(r.t.TempDir(), "terminal")
	if err != nil {
		r.t.Fatal(err)
	}
	term := &terminal{cmd: r.command(context.Background(), name, args...), done: make(chan struct{}), out: out}
	term.cmd.Dir, term.cmd.Stdout, term.cmd.Stderr = dir, out, out
	if err := term.cmd.Start(); err != nil {
		r.t.Fatalf("%s: %v", r.page, err)
	}
	go func() {
		defer close(term.done)
		_ = term.cmd.Wait()
	}()
	r.running = append(r.running, term)
	if !strings.Contains(strings.Join(args, " "), "serve") {
		return
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	if out, err := r.command(ctx, "sluice", "health", "--wait", "10s").CombinedOutput(); err != nil {
		r.t.Fatalf("%s: the server of %q is not ready: %v\n%s\n%s", r.page, args, err, out, term.printed())
	}
}

func (t *terminal) printed() []byte {
	text, err := os.ReadFile(t.out.Name())
	if err != nil {
		return []byte(err.Error())
	}
	return text
}

// stop interrupts what was started last, as Ctrl-C does, and waits for it.
func (r *reader) stop() {
	r.t.Helper()
	if len(r.running) == 0 {
		r.t.Fatalf("%s: nothing is running that could be stopped", r.page)
	}
	term := r.running[len(r.running)-1]
	r.running = r.running[:len(r.running)-1]
	_ = syscall.Kill(-term.cmd.Process.Pid, syscall.SIGINT) // it may have ended by itself
	select {
	case <-term.done:
	case <-time.After(30 * time.Second):
		_ = syscall.Kill(-term.cmd.Process.Pid, syscall.SIGKILL)
		r.t.Errorf("%s: this did not end within 30 s of an interrupt: %q\n%s", r.page, term.cmd.Args, term.printed())
	}
	_ = term.out.Close()
}

// goBlocks are the Go blocks of a page.
var goBlocks = regexp.MustCompile("(?s)```go\n(.*?)```")

// TestGoIsCompiled: each Go block of the pages is copied from a program in examples, which the compiler
// checks. Indentation does not count.
func TestGoIsCompiled(t *testing.T) {
	var programs strings.Builder
	err := filepath.WalkDir(filepath.Join(root, "examples"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" {
			return err
		}
		text, err := os.ReadFile(path)
		programs.WriteString(flush(string(text)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	guides, _ := filepath.Glob(filepath.Join(root, "docs/guides/*.md"))
	for _, page := range pages {
		guides = append(guides, filepath.Join(root, page))
	}
	for _, page := range guides {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range goBlocks.FindAllStringSubmatch(string(text), -1) {
			if !strings.Contains(programs.String(), flush(block[1])) {
				t.Errorf("%s: this block is in no example:\n%s", page, block[1])
			}
		}
	}
}

// flush removes indentation and empty lines.
func flush(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			out.WriteString("\n" + line)
		}
	}
	return out.String() + "\n"
}

// TestMatches: the comparison must be able to fail.
func TestMatches(t *testing.T) {
	for _, c := range []struct {
		want, got string
		match     bool
	}{
		{"a … b\n", "a 1 2\n3 b\n", true},
		{"a b", " a   b\n", true},
		{"a …", "b a", false},
		{"a.c", "abc", false},
		{"a", "a b", false},
		{"a", "", false},
	} {
		if matches(c.want, c.got) != c.match {
			t.Errorf("matches(%q, %q): got %t, want %t", c.want, c.got, !c.match, c.match)
		}
	}
}

// TestParse: a page that is written wrong is an error and not a page without tests.
func TestParse(t *testing.T) {
	for _, text := range []string{
		"```sh\ntrue\n```\n",
		"<!-- run -->\nno block\n",
		"<!-- run -->\n```sh\ntrue\n",
	} {
		if steps, err := parse(text); err == nil {
			t.Errorf("parse(%q): got %+v, want an error", text, steps)
		}
	}
	steps, err := parse("<!-- run exit=3 -->\n```sh\nfalse\n```\n\n```text\nno\n```\nprose\n```text\nother\n```\n<!-- stop -->\n")
	if err != nil || len(steps) != 2 || steps[0].want != "no\n" || steps[0].args != "exit=3" || steps[1].verb != "stop" {
		t.Errorf("got %+v, %v", steps, err)
	}
}
