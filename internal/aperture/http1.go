// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// exportHTTP1 answers calls of gRPC that come by HTTP/1.1. The exporter of OpenTelemetry for Java, which Aperture's
// client for Java uses, offers both versions of HTTP where there is TLS, and goes on with gRPC when it is given the
// older one. So its records come as messages of gRPC with the status in the trailer, only without HTTP/2.
func (d *Door) exportHTTP1(kind export) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.Header.Get("Content-Type"), grpcType) {
			http.Error(w, "this path takes calls of gRPC; OTLP over HTTP goes to /v1/traces and /v1/logs", http.StatusUnsupportedMediaType)
			return
		}
		w.Header().Set("Content-Type", grpcType)
		w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
		answer, err := d.callHTTP1(w, r, kind)
		w.WriteHeader(http.StatusOK)
		if err == nil {
			_, _ = w.Write(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(answer))), answer...)) // the client has gone
		}
		st := status.Convert(err)
		w.Header().Set("Grpc-Status", strconv.Itoa(int(st.Code())))
		w.Header().Set("Grpc-Message", percent(st.Message()))
	})
}

const grpcType = "application/grpc"

func (d *Door) callHTTP1(w http.ResponseWriter, r *http.Request, kind export) ([]byte, error) {
	body, err := readFrame(w, r)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	out, err := d.exportGRPC(r.Context(), &envelope{body}, kind)
	if err != nil {
		return nil, err
	}
	return out.body, nil
}

// readFrame reads the one message of a call.
func readFrame(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, mostBody))
	if err != nil {
		return nil, fmt.Errorf("the call cannot be read: %w", err)
	}
	if len(body) < 5 || uint64(binary.BigEndian.Uint32(body[1:])) != uint64(len(body)-5) {
		return nil, fmt.Errorf("the call has %d bytes, which are no message of gRPC", len(body))
	}
	compressed, body := body[0] != 0, body[5:]
	if !compressed {
		return body, nil
	}
	if encoding := r.Header.Get("Grpc-Encoding"); encoding != "gzip" {
		return nil, fmt.Errorf("grpc-encoding %.20q, want gzip or none", encoding)
	}
	return unzip(bytes.NewReader(body))
}

// percent writes a message as gRPC wants it in a trailer.
func percent(message string) string {
	var out strings.Builder
	for i := range len(message) {
		if c := message[i]; c < ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&out, "%%%02X", c)
			continue
		}
		out.WriteByte(message[i])
	}
	return out.String()
}
