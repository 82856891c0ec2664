// SPDX-License-Identifier: Apache-2.0

package doorstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Options say how to start the product. The zero value starts it with its defaults and no policy.
type Options struct {
	// Policies are documents, or paths of files below the repository that end in .yaml.
	Policies []string
	// Args are added to those of serve.
	Args []string
	// Env is added to the environment, as NAME=value: SLUICE_… for settings.
	Env []string
	// Listen is where it listens; "": a free port.
	Listen string
}

// Server is a running product.
type Server struct {
	*Process
	// Addr is host:port, URL the same with http://. PolicyDir may be written to: it is watched.
	Addr, URL, PolicyDir string

	t testing.TB
}

// Sluice starts the product with data of its own and waits until it is ready. It ends with the test.
func Sluice(t testing.TB, o Options) *Server {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Addr: o.Listen, PolicyDir: filepath.Join(t.TempDir(), "policies"), t: t}
	if s.Addr == "" {
		s.Addr = FreeAddr(t)
	}
	s.URL = "http://" + s.Addr
	if err := os.Mkdir(s.PolicyDir, 0o700); err != nil {
		t.Fatal(err)
	}
	for i, policy := range o.Policies {
		s.AddPolicy(strconv.Itoa(i)+".yaml", policy)
	}
	args := []string{"serve", "--listen", s.Addr, "--policy-dir", s.PolicyDir, "--data-dir", filepath.Join(t.TempDir(), "data")}
	cmd := exec.CommandContext(context.Background(), bin, append(args, o.Args...)...) //nolint:gosec // the test says what to run
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "SLUICE_") {
			cmd.Env = append(cmd.Env, entry)
		}
	}
	cmd.Env = append(cmd.Env, o.Env...)
	s.Process = StartCommand(t, cmd)
	s.awaitReady()
	return s
}

// AddPolicy writes a file of the folder of policies. The document is text, or the path of a file below the repository.
func (s *Server) AddPolicy(name, document string) {
	s.t.Helper()
	if strings.HasSuffix(document, ".yaml") && !strings.Contains(document, "\n") {
		document = Read(s.t, document)
	}
	if err := os.WriteFile(filepath.Join(s.PolicyDir, name), []byte(document), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *Server) awaitReady() {
	s.t.Helper()
	Eventually(s.t, func() error {
		if s.Ended() {
			s.t.Fatalf("the server ended before it was ready: %v", s.err)
		}
		if strings.Contains(strings.Join(s.cmd.Args, " "), "--tls-cert") {
			if !strings.Contains(s.Log(), " is ready: ") { // the test has the certificate, this package has not
				return errors.New("the server has not said that it is ready")
			}
			return nil
		}
		_, err := s.get("/readyz")
		return err
	})
}

func (s *Server) get(path string) ([]byte, error) {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, s.URL+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s\n%s", path, resp.Status, body)
	}
	return body, err
}

// Metrics is the text of /metrics.
func (s *Server) Metrics() string {
	s.t.Helper()
	text, err := s.get("/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// Metric is the sum of the series of a metric that have these labels, which are pairs of names and values; of
// histograms, it counts the observations. No series: 0.
func (s *Server) Metric(name string, labels ...string) float64 {
	s.t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader([]byte(s.Metrics())))
	if err != nil {
		s.t.Fatalf("/metrics: %v", err)
	}
	sum := 0.0
next:
	for _, m := range families[name].GetMetric() {
		has := make(map[string]string)
		for _, pair := range m.GetLabel() {
			has[pair.GetName()] = pair.GetValue()
		}
		for i := 0; i+1 < len(labels); i += 2 {
			if has[labels[i]] != labels[i+1] {
				continue next
			}
		}
		// Of these, a metric has one; the others are 0.
		sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue() +
			float64(m.GetHistogram().GetSampleCount()) + float64(m.GetSummary().GetSampleCount())
	}
	return sum
}
