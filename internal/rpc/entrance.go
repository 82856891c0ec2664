// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"
)

// firstBytesTimeout is how long a new connection may take for the TLS handshake and its first bytes.
const firstBytesTimeout = 10 * time.Second

// entrance accepts the connections of one port and tells by their first bytes who serves them: those that
// open with the HTTP/2 preface go to grpc-go, the rest to net/http. Splitting by connection costs
// nothing per request; serving gRPC through net/http would cost two thirds of the throughput.
type entrance struct {
	listener net.Listener
	tls      *tls.Config   // nil: clear text
	slots    chan struct{} // one for each connection, of all entrances
	log      *slog.Logger
	grpc     *hall
	http     *hall

	greeting sync.WaitGroup
}

func newEntrance(l net.Listener, config *tls.Config, slots chan struct{}, log *slog.Logger) *entrance {
	return &entrance{
		listener: l, tls: withProtocols(config), slots: slots, log: log,
		grpc: newHall(l.Addr()), http: newHall(l.Addr()),
	}
}

// withProtocols offers both versions of HTTP, and notes on the connection what the client offered.
func withProtocols(config *tls.Config) *tls.Config {
	if config == nil {
		return nil
	}
	out := config.Clone()
	out.NextProtos = []string{"h2", "http/1.1"}
	out.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if c, ok := hello.Conn.(*encrypted); ok {
			c.speaksHTTP1 = slices.Contains(hello.SupportedProtos, "http/1.1")
		}
		return nil, nil // go on with this one
	}
	return out
}

// encrypted is a connection below TLS.
type encrypted struct {
	net.Conn
	speaksHTTP1 bool // its client offers HTTP/1.1, alone or beside HTTP/2
}

// run accepts connections until ctx ends or the listener fails. It closes the listener.
func (e *entrance) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = e.listener.Close() })
	defer stop()
	defer e.greeting.Wait()
	var pause time.Duration
	for {
		conn, err := e.listener.Accept()
		switch {
		case err == nil:
			pause = 0
			e.enter(ctx, conn)
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		default: // out of file descriptors, mostly: others will close theirs
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			e.log.Warn("cannot accept a connection", "error", err, "retry_in", pause)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
		}
	}
}

// enter hands a connection on, or closes it when there are too many.
func (e *entrance) enter(ctx context.Context, conn net.Conn) {
	select {
	case e.slots <- struct{}{}:
	default:
		e.log.Debug("closed a connection: there are as many as allowed", "max_connections", cap(e.slots), "remote", conn.RemoteAddr().String())
		_ = conn.Close()
		return
	}
	guest := &guest{Conn: conn, leave: sync.OnceFunc(func() { <-e.slots })}
	e.greeting.Go(func() {
		// The server may be told to stop while a client says nothing.
		stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
		hall, err := e.greet(ctx, guest)
		if !stop() || err != nil || !hall.admit(guest) {
			_ = guest.Close()
		}
	})
}

var preface = []byte("PRI")

// greet finds out who serves a guest. Clients that speak both versions of HTTP may be browsers or clients of gRPC:
// net/http serves them and looks at each request.
func (e *entrance) greet(ctx context.Context, g *guest) (*hall, error) {
	mixed := false
	if err := g.SetDeadline(time.Now().Add(firstBytesTimeout)); err != nil {
		return nil, err
	}
	if e.tls != nil {
		below := &encrypted{Conn: g.Conn}
		conn := tls.Server(below, e.tls)
		if err := conn.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		g.Conn, mixed = conn, below.speaksHTTP1
	}
	first := make([]byte, len(preface))
	n, err := io.ReadFull(g.Conn, first)
	if n == 0 {
		return nil, err
	}
	g.first = first[:n]
	if err := g.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	if slices.Equal(g.first, preface) && !mixed {
		return e.grpc, nil
	}
	return e.http, nil
}

// guest is a connection whose first bytes were read already.
type guest struct {
	net.Conn
	first []byte
	leave func()
}

// Read implements net.Conn.
func (g *guest) Read(p []byte) (int, error) {
	if len(g.first) == 0 {
		return g.Conn.Read(p)
	}
	n := copy(p, g.first)
	g.first = g.first[n:]
	return n, nil
}

// Close implements net.Conn.
func (g *guest) Close() error {
	g.leave()
	return g.Conn.Close()
}

// CloseWrite lets net/http end an answer before it closes the connection.
func (g *guest) CloseWrite() error {
	if c, ok := g.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// hall is the listener of one of the servers behind the door.
type hall struct {
	addr   net.Addr
	guests chan net.Conn
	closed chan struct{}
	once   sync.Once
}

var _ net.Listener = (*hall)(nil)

func newHall(addr net.Addr) *hall {
	return &hall{addr: addr, guests: make(chan net.Conn), closed: make(chan struct{})}
}

// admit waits until the server takes the connection; false: it has stopped.
func (h *hall) admit(c net.Conn) bool {
	select {
	case h.guests <- c:
		return true
	case <-h.closed:
		return false
	}
}

// Accept implements net.Listener.
func (h *hall) Accept() (net.Conn, error) {
	select {
	case c := <-h.guests:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. It may be called more than once.
func (h *hall) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr implements net.Listener.
func (h *hall) Addr() net.Addr { return h.addr }
