// SPDX-License-Identifier: Apache-2.0

package sluice

import (
	"crypto/tls"
	"log/slog"
	"time"

	"google.golang.org/grpc"
)

const (
	// defaultUnavailableTimeout leaves room for a TCP and TLS handshake inside a data centre plus one
	// repeat after connectBaseDelay, and is still short beside what a user notices. It is paid once per
	// outage, not once per flow.
	defaultUnavailableTimeout = 100 * time.Millisecond

	// defaultMaxWaiting bounds memory to some tens of megabytes: a waiting flow costs less than 1 KiB
	// beside the goroutine that waits.
	defaultMaxWaiting = 65_536

	// maxMaxWaiting is what a server accepts on one stream.
	maxMaxWaiting = 100_000
)

// Option changes how a Client works.
type Option func(*settings)

type settings struct {
	token              string
	tls                *tls.Config
	failClosed         bool
	unary              bool
	dialOptions        []grpc.DialOption
	log                *slog.Logger
	maxWaiting         int
	unavailableTimeout time.Duration
}

// WithToken sends a bearer token with every call. The default is $SLUICE_TOKEN; empty means none.
// Without TLS the token travels in clear text; NewClient logs a warning unless the server is on this
// machine.
func WithToken(token string) Option { return func(s *settings) { s.token = token } }

// WithTLS encrypts the connection. A nil config means the default one. An https:// address has the
// same effect as WithTLS(nil).
func WithTLS(config *tls.Config) Option {
	return func(s *settings) {
		if config == nil {
			config = &tls.Config{}
		}
		s.tls = config
	}
}

// WithFailClosed makes flows not run when the server cannot be asked. The default is to run them.
// Flows in ramp mode never run without the server, whatever is chosen here.
func WithFailClosed() Option { return func(s *settings) { s.failClosed = true } }

// WithDialOptions adds options to the gRPC connection. They win over what the client sets itself.
func WithDialOptions(opts ...grpc.DialOption) Option {
	return func(s *settings) { s.dialOptions = append(s.dialOptions, opts...) }
}

// WithLogger logs when the server goes away and comes back, and what was lost. The default, and nil,
// log nothing. Flows are never logged one by one.
func WithLogger(log *slog.Logger) Option { return func(s *settings) { s.log = log } }

// WithMaxWaiting bounds the flows that wait in this client, 65,536 unless told. One more is denied at
// once with the reason "queue_full". n must be 1 to 100,000, which is what a server accepts.
func WithMaxWaiting(n int) Option { return func(s *settings) { s.maxWaiting = n } }

// WithUnary asks for each flow in a call of its own, for networks that do not carry long streams. It
// costs throughput, and one guarantee: when a flow is cancelled in the same instant as the server
// admits it, its slot stays taken until the limiter's max_inflight_duration has passed.
func WithUnary() Option { return func(s *settings) { s.unary = true } }

// WithUnavailableTimeout says how long flows may wait for a server that is away before they run or do
// not run without it; 100 ms unless told. The time counts from the start of the outage: once it has
// passed, flows are decided at once until the server is back. Zero never waits. d must not be negative.
func WithUnavailableTimeout(d time.Duration) Option {
	return func(s *settings) { s.unavailableTimeout = d }
}

// FlowOption changes how one flow is started.
type FlowOption func(flowOptions) flowOptions // by value, so that options allocate nothing

type flowOptions struct {
	services        []string
	queueTimeout    time.Duration
	hasQueueTimeout bool
	noEnd           bool
	explain         bool
	rampMode        bool
	cached          bool // ask the caches
	resultKey       string
	globalKeys      []string
	coalesce        Coalesce
}

// WithQueueTimeout bounds the time the flow may spend in queues. Zero, and less, do not wait: the flow
// runs now or not at all. Without this option the deadline of the context is the bound; with both, the
// earlier one.
func WithQueueTimeout(d time.Duration) FlowOption {
	return func(o flowOptions) flowOptions {
		o.queueTimeout, o.hasQueueTimeout = max(d, 0), true
		return o
	}
}

// WithServices names the services the caller belongs to, for policies that select by service.
func WithServices(services ...string) FlowOption {
	return func(o flowOptions) flowOptions {
		o.services = services
		return o
	}
}

// WithNoEnd says that End will not be called. Slots in flight are then freed only when the limiter's
// max_inflight_duration has passed.
func WithNoEnd() FlowOption {
	return func(o flowOptions) flowOptions {
		o.noEnd = true
		return o
	}
}

// WithExplain also answers what every limiter decided, in Verdict.Decisions. Such flows are asked for
// in a call of their own: use it to look into something, not on every request.
func WithExplain() FlowOption {
	return func(o flowOptions) flowOptions {
		o.explain = true
		return o
	}
}

// WithRampMode runs the flow only when a load ramp admits it, for feature flags and canaries. It never
// runs without the server, even in a client that fails open.
func WithRampMode() FlowOption {
	return func(o flowOptions) flowOptions {
		o.rampMode = true
		return o
	}
}

// Status says how the work of a flow went. The zero value is not said, and counted as StatusOK.
type Status uint8

const (
	// StatusOK says that the work succeeded.
	StatusOK Status = iota + 1
	// StatusError says that the work failed.
	StatusError
)

// EndOption adds to the report that a flow has ended.
type EndOption func(endOptions) endOptions // by value, as with FlowOption

type endOptions struct {
	status        Status
	tokens        float64
	hasTokens     bool
	tokensByLabel map[string]float64
}

// WithStatus says how the work went.
func WithStatus(s Status) EndOption {
	return func(o endOptions) endOptions {
		o.status = s
		return o
	}
}

// WithError says that the work failed when err is not nil, and that it succeeded when it is.
func WithError(err error) EndOption {
	if err != nil {
		return WithStatus(StatusError)
	}
	return WithStatus(StatusOK)
}

// WithTokens reports the true cost, for limiters whose cost came from a tokens label. A count that is
// negative, not a number or more than 2^53 is left out: the estimate then stands.
func WithTokens(n float64) EndOption {
	return func(o endOptions) endOptions {
		o.tokens, o.hasTokens = n, validTokens(n)
		return o
	}
}

// WithTokensByLabel reports the true cost by tokens label key, where limiters count different things.
// It wins over WithTokens. Counts that WithTokens would leave out, and keys that are not UTF-8, are
// left out. The map is copied.
func WithTokensByLabel(tokens map[string]float64) EndOption {
	return func(o endOptions) endOptions {
		o.tokensByLabel = tokens
		return o
	}
}
