// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maxBody bounds one request, over every protocol.
const maxBody = 4 << 20

// refuse answers an HTTP request with a gRPC status, in the form its client understands.
func refuse(w http.ResponseWriter, r *http.Request, err error) {
	st := status.Convert(err)
	if _, isMethod := permissions[r.URL.Path]; isMethod {
		// Not for requests that no RPC client sends: those get plain text.
		if e := connect.NewErrorWriter(); e.IsSupported(r) {
			_ = e.Write(w, r, toConnectError(err)) // the client has gone
			return
		}
	}
	code := http.StatusForbidden
	switch st.Code() {
	case codes.Unauthenticated:
		w.Header().Set("WWW-Authenticate", `Bearer realm="sluice"`)
		code = http.StatusUnauthorized
	case codes.Internal:
		code = http.StatusInternalServerError
	case codes.ResourceExhausted:
		code = http.StatusRequestEntityTooLarge
	case codes.DeadlineExceeded:
		code = http.StatusRequestTimeout
	}
	http.Error(w, st.Message(), code)
}

// guardHosts keeps web pages from reaching an open server under a name of their own (DNS rebinding). A
// nil list lets every host pass. What proxies ask has the headers of their user's request, so that neither this
// nor guardOrigins can look at it.
func guardHosts(allowed []string, next http.Handler) http.Handler {
	if allowed == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
		_, notIP := netip.ParseAddr(host)
		if isForwardAuth(r.URL.Path) || notIP == nil || host == "localhost" || strings.HasSuffix(host, ".localhost") || slices.Contains(allowed, host) {
			next.ServeHTTP(w, r)
			return
		}
		refuse(w, r, status.Errorf(codes.PermissionDenied, "requests for the host %q are refused, because this server asks for no token: use localhost, or list the host in http.allowed_hosts", r.Host))
	})
}

// guardOrigins refuses what pages of other origins make a browser send, and lets those listed call.
func guardOrigins(origins []string, next http.Handler) (http.Handler, error) {
	cross := http.NewCrossOriginProtection()
	for _, o := range origins {
		if err := cross.AddTrustedOrigin(o); err != nil {
			return nil, err
		}
	}
	cross.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		refuse(w, r, status.Errorf(codes.PermissionDenied, "a page of %q may not call this server: list its origin in http.allowed_origins", r.Header.Get("Origin")))
	}))
	guarded := allowOrigins(origins, cross.Handler(next))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isForwardAuth(r.URL.Path) {
			next.ServeHTTP(w, r)
			return
		}
		guarded.ServeHTTP(w, r)
	}), nil
}

// allowOrigins tells browsers that pages of these origins may read answers (CORS).
func allowOrigins(origins []string, next http.Handler) http.Handler {
	if len(origins) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin := r.Header.Get("Origin")
		w.Header().Add("Vary", "Origin")
		if !slices.Contains(origins, origin) {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Access-Control-Allow-Origin", origin)
		w.Header().Set("Access-Control-Expose-Headers", "Grpc-Status, Grpc-Message, Grpc-Status-Details-Bin")
		if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Access-Control-Allow-Methods", "GET, POST")
		w.Header().Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Connect-Protocol-Version, Connect-Timeout-Ms, Grpc-Timeout, X-Grpc-Web, X-User-Agent")
		w.Header().Set("Access-Control-Max-Age", "7200")
		w.WriteHeader(http.StatusNoContent)
	})
}

// recoverer turns a panic of a handler into an error of the call: one bad request must not take down
// the others.
type recoverer struct{ log *slog.Logger }

func (r recoverer) caught(method string, value any) error {
	r.log.Error("a call panicked; please report this", "method", method, "panic", value, "stack", string(debug.Stack()))
	return status.Error(codes.Internal, "the server failed to handle this call; its log has the details")
}

func (r recoverer) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (out any, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = r.caught(info.FullMethod, v)
		}
	}()
	return next(ctx, req)
}

func (r recoverer) stream(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = r.caught(info.FullMethod, v)
		}
	}()
	return next(srv, s)
}

func (r recoverer) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(v) // the way to break off an answer, which net/http knows
			}
			refuse(w, req, r.caught(req.URL.Path, v))
		}()
		next.ServeHTTP(w, req)
	})
}

// bodyTimeout is how long a client may take to send a request.
const bodyTimeout = 30 * time.Second

// readBodies reads every body before the handler runs, so that a slow or endless one ends here. (The
// ReadTimeout of net/http would end long waits of flows too.)
func readBodies(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength == 0 {
			next.ServeHTTP(w, r)
			return
		}
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(time.Now().Add(bodyTimeout)) // unsupported only in tests
		body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
		_ = control.SetReadDeadline(time.Time{})
		switch {
		case err != nil:
			w.Header().Set("Connection", "close")
			refuse(w, r, status.Errorf(codes.DeadlineExceeded, "the request did not arrive whole within %s", bodyTimeout))
		case len(body) > maxBody:
			w.Header().Set("Connection", "close")
			refuse(w, r, status.Errorf(codes.ResourceExhausted, "the request has more than %d bytes, which is the most allowed", maxBody))
		default:
			r.Body = io.NopCloser(bytes.NewReader(body))
			next.ServeHTTP(w, r)
		}
	})
}
