// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"

	"github.com/sluice-project/sluice/internal/app"
	"github.com/sluice-project/sluice/internal/config"
	"github.com/sluice-project/sluice/internal/rls"
)

// server is one or more processes that serve together.
type server struct {
	name, addr string
	processes  []*os.Process
}

// used is the processor time that the processes have used; 0 where /proc does not tell.
func (s *server) used() time.Duration {
	const perTick = 10 * time.Millisecond // of the numbers in stat, wherever Go runs on Linux
	var sum time.Duration
	for _, p := range s.processes {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid))
		if err != nil {
			return 0
		}
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		for _, field := range fields[11:13] { // utime and stime
			ticks, _ := strconv.ParseInt(field, 10, 64)
			sum += time.Duration(ticks) * perTick
		}
	}
	return sum
}

// startAll starts the servers, the floor first. stop ends them, also after an error.
func startAll(o options) (servers []server, stop func(), err error) {
	var stops []func()
	stop = func() {
		for i := len(stops) - 1; i >= 0; i-- {
			stops[i]()
		}
	}
	for _, name := range []string{"noop", plainName, "sluice"} {
		s, end, err := startSelf(name, o.profile)
		if err != nil {
			return nil, stop, err
		}
		stops = append(stops, end)
		servers = append(servers, s)
	}
	if o.peer != "" {
		s, end, err := startPeer(o)
		stops = append(stops, end)
		if err != nil {
			return nil, stop, err
		}
		servers = append(servers, s)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, s := range servers[1:] {
		if err := limited(ctx, s.addr); err != nil {
			return nil, stop, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return servers, stop, nil
}

// startSelf runs this program as a server.
func startSelf(name, profile string) (s server, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return s, nil, err
	}
	cmd := exec.Command(self, "-serve", name, "-profile", profile)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return s, nil, err
	}
	if err := cmd.Start(); err != nil {
		return s, nil, err
	}
	stop = end(cmd)
	line := make([]byte, 256)
	n, err := out.Read(line)
	if err != nil {
		stop()
		return s, nil, fmt.Errorf("server %s did not say its address: %w", name, err)
	}
	return server{name, strings.TrimSpace(string(line[:n])), []*os.Process{cmd.Process}}, stop, nil
}

// end returns what ends a process that was started.
func end(cmd *exec.Cmd) func() {
	return func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		_ = cmd.Wait()
	}
}

// runServer serves until it is asked to end. It prints its address first.
func runServer(name, profile string) error {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	switch name {
	case "sluice":
		return runProduct(ctx, profile, nil)
	case plainName:
		return runProduct(ctx, "", func(c *config.Config) { c.EnvoyRateLimit.Headers = string(rls.HeadersNone) })
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	rlsv3.RegisterRateLimitServiceServer(s, noop{})
	fmt.Println(lis.Addr())
	context.AfterFunc(ctx, s.Stop)
	return s.Serve(lis)
}

// noop answers that all is well.
type noop struct {
	rlsv3.UnimplementedRateLimitServiceServer
}

func (noop) ShouldRateLimit(context.Context, *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
	return &rlsv3.RateLimitResponse{OverallCode: rlsv3.RateLimitResponse_OK}, nil
}

// plainName is Sluice without RateLimit headers in its answers, which envoyproxy/ratelimit leaves out, too, unless told.
const plainName = "sluice without headers"

// runProduct is `sluice serve` as it ships, with a limit by descriptor that never denies. change may be nil.
func runProduct(ctx context.Context, profile string, change func(*config.Config)) error {
	dir, err := os.MkdirTemp("", "sluice-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	policies := filepath.Join(dir, "policies")
	if err := os.Mkdir(policies, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(policies, "bench.yaml"), []byte(policy), 0o600); err != nil {
		return err
	}
	c := config.Default()
	c.Listen, c.DataDir, c.PolicyDir = "127.0.0.1:0", filepath.Join(dir, "data"), policies
	if change != nil {
		change(&c)
	}
	a, err := app.Start(ctx, c, app.Options{LogTo: io.Discard})
	if err != nil {
		return err
	}
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	fmt.Println(a.Addr())
	return a.Wait()
}

const policy = `blueprint: rate-limiting/base
policy:
  policy_name: bench
  rate_limiter:
    bucket_capacity: 1000000000
    fill_amount: 1000000000
    selectors:
      - control_point: ratelimit/bench
    parameters:
      interval: 1s
      fixed_window: true
      limit_by_label_key: ratelimit.descriptor
    request_parameters:
      tokens_label_key: ratelimit.hits
`

// peerLimits are the same for envoyproxy/ratelimit.
const peerLimits = `domain: bench
descriptors:
  - key: path
    value: /login
    descriptors:
      - key: remote_address
        rate_limit: {unit: second, requests_per_unit: 1000000000}
`

// startPeer runs envoyproxy/ratelimit and a Redis that keeps nothing on disk, with a pool of connections and batches
// of commands as its documentation suggests for load.
func startPeer(o options) (s server, stop func(), err error) {
	stop = func() {}
	dir, err := os.MkdirTemp("", "ratelimit-bench")
	if err != nil {
		return s, stop, err
	}
	stops := []func(){func() { _ = os.RemoveAll(dir) }}
	stop = func() {
		for i := len(stops) - 1; i >= 0; i-- {
			stops[i]()
		}
	}
	if err = os.MkdirAll(filepath.Join(dir, "data", "config"), 0o755); err != nil {
		return s, stop, err
	}
	if err = os.WriteFile(filepath.Join(dir, "data", "config", "bench.yaml"), []byte(peerLimits), 0o600); err != nil {
		return s, stop, err
	}
	ports, err := freePorts(4)
	if err != nil {
		return s, stop, err
	}
	redis := exec.Command(o.redis, "--port", ports[0], "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", dir)
	redis.Stderr = os.Stderr
	if err = redis.Start(); err != nil {
		return s, stop, fmt.Errorf("start %s: %w", o.redis, err)
	}
	stops = append(stops, end(redis))
	if err = await("127.0.0.1:" + ports[0]); err != nil {
		return s, stop, err
	}
	peer := exec.Command(o.peer)
	peer.Env = append(os.Environ(),
		"RUNTIME_ROOT="+dir, "RUNTIME_SUBDIRECTORY=data", "RUNTIME_WATCH_ROOT=false", "RUNTIME_IGNOREDOTFILES=true",
		"REDIS_SOCKET_TYPE=tcp", "REDIS_URL=127.0.0.1:"+ports[0], "REDIS_POOL_SIZE=20", "REDIS_PIPELINE_WINDOW=150us", "REDIS_PIPELINE_LIMIT=8",
		"DISABLE_STATS=true", "LOG_LEVEL=error", "HOST=127.0.0.1", "GRPC_HOST=127.0.0.1", "DEBUG_HOST=127.0.0.1",
		"PORT="+ports[1], "GRPC_PORT="+ports[2], "DEBUG_PORT="+ports[3])
	peer.Stderr = os.Stderr
	if err = peer.Start(); err != nil {
		return s, stop, fmt.Errorf("start %s: %w", o.peer, err)
	}
	stops = append(stops, end(peer))
	s = server{"envoyproxy/ratelimit + Redis", "127.0.0.1:" + ports[2], []*os.Process{peer.Process, redis.Process}}
	return s, stop, await(s.addr)
}

func freePorts(n int) ([]string, error) {
	ports := make([]string, n)
	for i := range ports {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer lis.Close()
		ports[i] = strconv.Itoa(lis.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// await waits until somebody listens.
func await(addr string) error {
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var conn net.Conn
		if conn, err = net.DialTimeout("tcp", addr, time.Second); err == nil {
			return conn.Close()
		}
	}
	return err
}
